"""``maskrl eval``: a command for every installed evaluation, and what compares results."""

from __future__ import annotations

import ast
from dataclasses import asdict
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from maskrl import registry
from maskrl.cli.eval_command import command_of, refuse_old
from maskrl.cli.fid_statistics import fid_statistics
from maskrl.cli.output import JsonOption, print_json


class Evaluations(TyperGroup):
    """The commands of this group: those below, and one for every installed evaluation.

    None is imported before it is used: ``maskrl eval --help`` reads what each is about from its source.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Name the commands."""
        return [*offers(), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, name: str) -> Any:
        """Return a command: ``NAME``, ``PACKAGE/NAME`` or ``my_file.py:MyEvaluation`` of an evaluation."""
        own = super().get_command(ctx, name)
        offer = offers().get(name)
        if own is not None or not (offer or "/" in name or registry.is_local(name)):
            return own
        return _Unread(name, help=summary(offer))


def offers() -> dict[str, registry.Offer]:
    """Return the installed evaluations by name."""
    return {
        offer.name: offer
        for offer in registry.installed()
        if (offer.kind, offer.interface) == ("evaluations", registry.INTERFACE_VERSION)
    }


class _Unread(TyperCommand):
    """The command of an evaluation whose class has not been imported: it is made of it once somebody calls it."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the arguments, by the evaluation's own options."""
        name = str(self.name)
        refuse_old(name, args)
        made = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        made.command(name=name)(command_of(name))
        return typer.main.get_command(made).make_context(info_name, args, parent=parent, **extra)


def summary(offer: registry.Offer | None) -> str:
    """Return the first paragraph of an evaluation's docstring, without importing it; nothing if it cannot be read."""
    if offer is None:
        return ""
    module, _, name = offer.target.partition(":")
    try:
        source = _file_of(module).read_text(encoding="utf-8")
        classes = [
            node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
        ]
        text = ast.get_docstring(classes[0]) if classes else None
    except (Exception, SystemExit):  # a broken package must not take the list with it
        return ""
    return " ".join((text or "").partition("\n\n")[0].split())


def _file_of(module: str) -> Path:
    """Return the file of a module, found as Python finds it, but importing no package on the way."""
    top, *inside = module.split(".")
    spec = PathFinder.find_spec(top)
    if spec is None or (inside and not spec.submodule_search_locations):
        raise FileNotFoundError(module)
    if not inside:
        return Path(str(spec.origin))
    place = Path(next(iter(spec.submodule_search_locations or ())), *inside)
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


app = typer.Typer(
    cls=Evaluations, no_args_is_help=True, help="Measure a generator, or images that are there."
)
app.command("fid_statistics")(fid_statistics)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder with results, or their summary.json.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same evaluation.")],
    as_json: JsonOption = False,
) -> None:
    """Print the difference of two results with its uncertainty, and papers' rows beside it."""
    from rich.table import Table

    from maskrl.evals.comparison import compare_files
    from maskrl.evaluations.numbers import written
    from maskrl.training.tables import print_table

    found = compare_files(first, second)
    if as_json:
        numbers = {line.name: {k: v for k, v in asdict(line).items() if k != "name"} for line in found.lines}
        print_json({"label": found.first.label, "paired": found.is_known, "numbers": numbers})
        return
    table = Table()
    headings = (found.first.label, *_apart(first, second), "difference", *(p.name for p in found.published))
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left")
    for line in found.lines:
        values = (written(line.first), written(line.second), written(line.difference, sign=True))
        reported = (f"{p.numbers[line.name]:.2f}" if line.name in p.numbers else "" for p in found.published)
        table.add_row(line.name, *values, *reported)
    print_table(table)
    if found.published:
        typer.echo("the papers' rows: other images, and where they were not measured alike, not comparable")
    if not found.is_known:
        typer.echo(
            f"the evaluation {found.first.evaluation!r} does not load here, so prompts are not paired: the"
            " differences' errors are those of independent results",
            err=True,
        )


def _apart(first: Path, second: Path) -> tuple[str, str]:
    """Return what two paths are told apart by: without the folders that both begin with."""
    ours, theirs = first.parts, second.parts
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if same is None:
        return str(first), str(second)
    return str(Path(*ours[same:])), str(Path(*theirs[same:]))
