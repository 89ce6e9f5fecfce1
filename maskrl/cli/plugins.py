"""``maskrl plugins``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from maskrl import misnamed, registry
from maskrl.asking import asking
from maskrl.clashes import clashes
from maskrl.cli.output import JsonOption, print_json
from maskrl.errors import MaskRLError, PluginError, RecipeError, UnknownComponent
from maskrl.packages import packages
from maskrl.registry import Offer

app = typer.Typer(no_args_is_help=True, help="What is installed, and how to write more.")


@app.command("list")
def list_offers(as_json: JsonOption = False) -> None:
    """List every installed component; imports none."""
    if as_json:
        print_json([asdict(offer) for offer in registry.installed()])
        return
    rows = [("kind", "name", "package", "class")]
    rows += [
        (o.kind, o.name, f"{o.package} {o.version}{_other_version(o)}", o.target)
        for o in registry.installed()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for line in (*map(str, misnamed.misnamed()), *_damaged(), *clashes()):
        typer.echo(f"warning: {line}", err=True)


@app.command()
def check(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Installed components (clip, maskrl-clip/clip), or my_file.py:MyReward; else all."
        ),
    ] = None,
) -> None:
    """Import components, and run the contract checks of those that need no weights."""
    broken = 0
    found = _named(names) if names else [_titled(offer) for offer in registry.installed()]
    for title, offer in found:
        try:
            result = f"ok      {title}: {_check(offer)}"
        except MaskRLError as error:
            broken += 1
            result = f"broken  {title}: {error}"
        typer.echo(result)
    wrong = [] if names else [*map(str, misnamed.misnamed()), *_damaged()]
    for entry in wrong:
        typer.echo(f"broken  {entry}")
    for line in [] if names else clashes():
        typer.echo(f"warning: {line}", err=True)
    if broken or wrong:
        total = len(found) + len(wrong)
        raise PluginError(f"{broken + len(wrong)} of {total} components are broken")


@app.command()
def new(
    kind: Annotated[
        str,
        typer.Argument(
            help="reward, generator, transition, filter, reducer, evaluation, detector or prompts."
        ),
    ],
    name: Annotated[str, typer.Argument(help="What recipes will call it.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The folder to make; by default maskrl-NAME, here.")
    ] = None,
) -> None:
    """Write a package of a component that works: class, tests, README, and a recipe that trains at once."""
    from maskrl.templates import write_package

    package, folder = write_package(kind, name, to)
    place, recipe = (shlex.quote(str(path)) for path in (folder, folder / f"{package.name}.toml"))
    typer.echo(f"{folder}: the {package.label} {package.name!r}, class {package.class_name}")
    typer.echo(f"next:  pip install -e {place}")
    typer.echo(f"       maskrl train --recipe {recipe}")


Titled = tuple[str, Offer | str]  # what a line calls a component; an offer, or a class in a file


def _titled(offer: Offer) -> Titled:
    return f"{offer.kind} {offer.spelling}", offer


def _named(names: Sequence[str]) -> list[Titled]:
    """Find what names mean: offers of any kind, or classes in files; nothing is imported yet."""
    offers = registry.installed()
    found: list[Titled] = []
    for name in names:
        if registry.is_local(name):
            found.append((name, name))
            continue
        same = [offer for offer in offers if name in (offer.name, offer.spelling)]
        if not same:
            hint = registry.nearest(name, {offer.name for offer in offers})
            raise UnknownComponent(f"no component is called {name!r}{hint}; 'maskrl plugins list' shows all")
        found += map(_titled, same)
    return found


def _damaged() -> list[str]:
    """Say whose metadata cannot be read, a line each."""
    return sorted(package.damage for package in packages() if package.damage is not None)


def _other_version(offer: Offer) -> str:
    same = offer.interface == registry.INTERFACE_VERSION
    return "" if same else f" (for version {offer.interface} of the interface)"


def _check(offer: Offer | str) -> str:
    """Check a component as far as its class allows, and say how far that was."""
    if isinstance(offer, str):
        return _check_class(*registry.load_any(offer))
    if offer.interface != registry.INTERFACE_VERSION:
        raise PluginError(
            f"is for version {offer.interface} of the interface, not {registry.INTERFACE_VERSION}"
        )
    return _check_class(offer.kind, offer.load())


def _check_class(kind: str, component: type[Any]) -> str:
    from maskrl import testing

    testing.check_class(component)
    checks: dict[str, Any] = {
        "generators": testing.check_generator,
        "transitions": testing.check_transition,
        "rewards": testing.check_reward,
        "filters": testing.check_filter,
        "reducers": testing.check_reducer,
        "evaluations": testing.check_evaluation,
        "detectors": testing.check_detector,
        "prompts": testing.check_prompts,
    }
    if any(field.is_required() for field in component.Config.model_fields.values()):
        return "imports; it has settings without a default, so its own tests call the contract checks"
    with asking(component):
        config = component.Config()
    if any(getattr(config, key) is not None for key in component.paths):
        return "imports; it may need weights, so its own tests call the contract checks"
    try:
        with asking(component):
            built = component(config)
    except MaskRLError as error:
        if not component.paths and not (kind == "evaluations" and isinstance(error, RecipeError)):
            raise
        return f"imports; it is not built without weights or settings ({error}): its own tests call the contract checks"
    try:
        with asking(component):
            checks[kind](built)
    except RecipeError as error:
        if kind != "evaluations":
            raise
        return f"imports; it needs prompts of its own ({error}), so its own tests call the contract checks"
    return "keeps its contract"
