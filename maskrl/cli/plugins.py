"""``maskrl plugins``."""

from __future__ import annotations

from typing import Any

import typer

from maskrl import registry
from maskrl.errors import MaskRLError, PluginError
from maskrl.registry import Offer

app = typer.Typer(no_args_is_help=True, help="What is installed.")


@app.command("list")
def list_offers() -> None:
    """List every installed component; imports none."""
    rows = [("kind", "name", "package", "class")]
    rows += [
        (o.kind, o.name, f"{o.package} {o.version}{_other_version(o)}", o.target)
        for o in registry.installed()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def check() -> None:
    """Import every installed component, and run the contract checks of those that need no weights."""
    offers = registry.installed()
    broken = 0
    for offer in offers:
        try:
            result = f"ok      {offer.kind} {offer.spelling}: {_check(offer)}"
        except MaskRLError as error:
            broken += 1
            result = f"broken  {offer.kind} {offer.spelling}: {error}"
        typer.echo(result)
    if broken:
        raise PluginError(f"{broken} of {len(offers)} components are broken")


def _other_version(offer: Offer) -> str:
    same = offer.interface == registry.INTERFACE_VERSION
    return "" if same else f" (for version {offer.interface} of the interface)"


def _check(offer: Offer) -> str:
    """Check a component as far as its class allows, and say how far that was."""
    from maskrl import testing

    if offer.interface != registry.INTERFACE_VERSION:
        raise PluginError(
            f"is for version {offer.interface} of the interface, not {registry.INTERFACE_VERSION}"
        )
    component = offer.load()
    testing.check_class(component)
    checks: dict[str, Any] = {
        "transitions": testing.check_transition,
        "filters": testing.check_filter,
        "reducers": testing.check_reducer,
        "prompts": testing.check_prompts,
    }
    if offer.kind not in checks:
        return "imports; it may need weights, so its own tests call the contract checks"
    if any(field.is_required() for field in component.Config.model_fields.values()):
        return "imports; it has settings without a default, so its own tests call the contract checks"
    try:
        checks[offer.kind](component(component.Config()))
    except MaskRLError:
        raise
    except Exception as error:  # third-party code
        raise PluginError(f"fails its contract check: {type(error).__name__}: {error}") from error
    return "keeps its contract"
