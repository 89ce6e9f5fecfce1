"""``maskrl train``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import RecipeOption, SetOption
from maskrl.errors import RecipeError

if TYPE_CHECKING:
    from maskrl.training.result import TrainResult


def train(
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    run: Annotated[
        Path | None, typer.Option(help="Where to write; by default named after recipe and time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of --run.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show nothing while it runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train as a recipe says; --resume alone needs --run only."""
    quiet = quiet or as_json
    if not quiet and os.environ.get("RANK", "0") == "0":
        typer.echo("loading PyTorch, the generator and the reward")
    from maskrl.recipe import read_recipe
    from maskrl.recipes_at_hand import locate_recipe
    from maskrl.runtime.folder import PLUGINS, RECIPE
    from maskrl.training.loop import train as run_training

    if resume and run is None:
        raise RecipeError("--resume needs the run to go on with: --run DIR")
    if recipe is None:
        if run is None or not resume:
            raise RecipeError("say what to train: --recipe R")
        if not (run / RECIPE).is_file():
            raise RecipeError(f"there is no run in {str(run)!r} to go on with: it holds no {RECIPE}")
        recipe = str(run / RECIPE)
    path = locate_recipe(recipe)
    try:
        chosen = read_recipe(path, overrides or ())
    except RecipeError as error:
        if not resume or run is None or not (run / PLUGINS).is_dir():
            raise
        raise RecipeError(
            f"{error}\nwhat was moved is found again by --set (--set reward.name=NEW/PLACE.py:NAME); copies of the"
            f" run's files with code are in {str(run / PLUGINS)!r}"
        ) from error
    result = run_training(chosen, run, resume, not quiet, name=path.stem)
    if result.is_main and as_json:
        print_json(_told(result))
    elif result.is_main:
        typer.echo(f"run: {result.run}")


def _told(result: TrainResult) -> dict[str, Any]:
    sides = {"before": result.before, "after": result.after}
    numbers = {
        when: {
            label: {name: asdict(number) for name, number in report.numbers.items()}
            for label, report in reports.items()
        }
        for when, reports in sides.items()
    }
    picture = None if result.picture is None else str(result.picture)
    return {"run": str(result.run), "updates": result.updates, **numbers, "picture": picture}
