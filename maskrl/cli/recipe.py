"""``maskrl recipe``."""

from __future__ import annotations

from typing import Annotated

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import SetOption

app = typer.Typer(no_args_is_help=True, help="Read recipes.")

RecipeArgument = Annotated[
    str, typer.Argument(help="A TOML file, or the name of a recipe that comes with maskrl.")
]


@app.command()
def show(recipe: RecipeArgument, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Print a recipe with every default; runs no file that it names: what such a section leaves out stays out."""
    from maskrl.component import Needs
    from maskrl.recipe import read_recipe

    found = read_recipe(recipe, overrides or (), Needs(files=()))
    if as_json:
        print_json({"digest": found.digest(), "unread": found.unread(), **found.model_dump(mode="json")})
        return
    for name in found.unread():
        typer.echo(f"# {name} is code and was not run: its section is as it was written, without defaults")
    typer.echo(found.to_toml(), nl=False)


@app.command()
def check(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Report every mistake in a recipe and its prompt files, each at its own key; loads no weights.

    Imports what the recipe names, also NAME.py:CLASS: look at a stranger's with `maskrl recipe show` first.
    """
    from maskrl.recipe import read_recipe
    from maskrl.runtime.prompts import training_prompts
    from maskrl.training.evaluating import prompts_of

    found = read_recipe(recipe, overrides or ())
    prompts = training_prompts(found.prompts)
    for label, section in found.eval.items():
        prompts_of(label, section)
    typer.echo(f"{recipe}: fine ({len(prompts)} prompts, digest {found.digest()})")
