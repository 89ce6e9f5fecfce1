"""The command line: one file a command, and nothing heavy is imported before a command needs it.

Exit codes: 0; 1 a bug of ours; 2 what the user wrote is wrong; 3 a broken plugin; 4 a run or an evaluation
that cannot go on, or the system refuses a path; 128 and its number on a signal (130: SIGINT, 143: SIGTERM).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from maskrl import __version__
from maskrl.cli import check, eval, plugins, recipe, repro
from maskrl.cli.doctor import doctor
from maskrl.cli.export import export
from maskrl.cli.output import Sturdy
from maskrl.cli.plan import plan
from maskrl.cli.report import report, watch
from maskrl.cli.sample import sample
from maskrl.cli.serve_reward import serve_reward
from maskrl.cli.sweep import sweep
from maskrl.cli.train import train
from maskrl.errors import MaskRLError, Terminated, TrainingError

app = typer.Typer(
    help="Reinforcement learning for text-to-image models that paint by unmasking tokens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(train)
app.command()(sample)
app.command()(plan)
app.command()(sweep)
app.command()(export)
app.command("serve-reward")(serve_reward)
app.command()(doctor)
app.command()(report)
app.command()(watch)
app.add_typer(eval.app, name="eval")
app.add_typer(recipe.app, name="recipe")
app.add_typer(plugins.app, name="plugins")
app.add_typer(check.app, name="check")
app.add_typer(repro.app, name="repro")

_LESS_MEMORY = "take fewer images at a time (--set eval.NAME.batch=8 of an evaluation), or --device cpu"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"maskrl {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; an error raised on purpose becomes a line, anything else keeps its traceback.

    A line too is what the system says of a path (its name is too long, its links lead in a circle).

    Raises:
        SystemExit: always.
    """
    handler = signal.signal(signal.SIGTERM, _terminate)
    output = sys.stdout
    sys.stdout = Sturdy(output)
    try:
        app(arguments)
    except MaskRLError as error:
        for line in str(error).splitlines():
            typer.echo(f"maskrl: {line}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        typer.echo(f"maskrl: {str(error.filename)!r}: {error.strerror}", err=True)
        sys.exit(TrainingError.exit_code)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; it need not have been imported
            raise
        reason = str(error).partition(". ")[0]
        typer.echo(f"maskrl: the device is out of memory ({reason}); {_LESS_MEMORY}", err=True)
        sys.exit(TrainingError.exit_code)
    finally:
        sys.stdout.flush()
        sys.stdout = output
        signal.signal(signal.SIGTERM, handler)


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated(128 + number)
