"""``maskrl doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import RecipeOption, SetOption
from maskrl.library.sources import DEFAULT_RECIPE

if TYPE_CHECKING:
    from maskrl.doctor.finding import Finding

MARKS = {"fine": "ok     ", "note": "note   ", "missing": "missing"}


def doctor(recipe: RecipeOption = None, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Say what is here, and what a recipe (by default the quickstart's) lacks; exit code 1 if it could not run.

    Nothing is fetched, and no network is built.
    """
    from maskrl.doctor.examine import examine, is_able

    chosen, found = recipe or DEFAULT_RECIPE, []
    for finding in examine(chosen, overrides or ()):
        found.append(finding)
        if not as_json:
            _print(finding, "" if len(found) > 1 and found[-2].topic == finding.topic else finding.topic)
    able = is_able(found)
    if as_json:
        print_json({"recipe": chosen, "able": able, "findings": [asdict(one) for one in found]})
    else:
        typer.echo(f"{chosen} could run here" if able else f"{chosen} could not run here")
    raise typer.Exit(0 if able else 1)


def _print(finding: Finding, topic: str) -> None:
    if topic:
        typer.echo(topic)
    typer.echo(f"  {MARKS[finding.status]}  {finding.text}")
    if finding.advice:
        typer.echo(f"           {finding.advice}")
