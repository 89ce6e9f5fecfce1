"""``maskrl report`` and ``maskrl watch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Against = Annotated[
    str | None,
    typer.Option(
        "--against", help="A recipe to compare the run's with; by default the nearest that is shipped."
    ),
]


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs' folders.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("report.html"),
    against: Against = None,
) -> None:
    """Write one page about a run, or several: numbers, curves, pictures, verdicts. It needs no network."""
    from maskrl.report.page import write

    write(runs, out, against)
    typer.echo(f"report: {out}")


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder; it may still be written.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8321,
    against: Against = None,
) -> None:
    """Show the page of a run that goes on, on this machine alone: it only reads the run's files."""
    from maskrl.report.watching import serve

    serve(run, port, against, typer.echo)
