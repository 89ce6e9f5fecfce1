"""Everything looked at, one after the other; what cannot be looked at is a line too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from maskrl.doctor import machine
from maskrl.doctor.finding import Finding
from maskrl.doctor.needs import recipe_needs

Look = Callable[[], Iterator[Finding]]
LOOKS: dict[str, Look] = {
    "versions": machine.versions,
    "extras": machine.extras,
    "devices": machine.devices,
    "room": machine.room,
    "weights": machine.weights,
}


def examine(recipe: str, overrides: Sequence[str] = ()) -> Iterator[Finding]:
    """Yield what is here, and what a recipe needs of it."""
    looks: dict[str, Look] = {**LOOKS, "recipe": partial(recipe_needs, recipe, list(overrides))}
    for topic, look in looks.items():
        try:
            yield from look()
        except Exception as error:  # a broken installation is what a doctor is asked about
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            advice = "install it anew: pip install --force-reinstall maskrl"
            yield Finding(topic, "missing", f"cannot be looked at ({reason})", advice)


def is_able(findings: Sequence[Finding]) -> bool:
    """Tell whether the recipe could run."""
    return all(one.status != "missing" for one in findings)
