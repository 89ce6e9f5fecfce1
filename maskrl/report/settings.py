"""A run's recipe, setting by setting, and what differs from the recipe that comes with maskrl and is nearest to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrl.component import Needs
from maskrl.errors import MaskRLError
from maskrl.recipe import read_recipe
from maskrl.recipe_file import toml_value
from maskrl.recipes_at_hand import shipped_recipes
from maskrl.runtime.folder import flat


@dataclass(frozen=True)
class Setting:
    """A setting as TOML writes it; ``elsewhere`` is what it is in the other recipe, None where it is the same."""

    key: str
    value: str
    elsewhere: str | None


@dataclass(frozen=True)
class Settings:
    """A recipe in its sections; ``other`` is the name of the one that it is compared with, "" where there is none."""

    sections: Mapping[str, Sequence[Setting]]
    other: str
    different: int


def settings(recipe: Mapping[str, Any], against: str | Path | None = None) -> Settings:
    """Compare a run's settings with another recipe's.

    Args:
        recipe: every setting by its full key.
        against: a recipe, or the name of one; None: the shipped one from which fewest settings differ.

    Raises:
        RecipeError: there is no such recipe, or it holds mistakes.
    """
    name, other = ("", {}) if against is None else (str(against), _flat(against))
    if against is None:
        name, other = nearest(recipe)
    sections: dict[str, list[Setting]] = {}
    for key, value in recipe.items():
        if value is None and other.get(key) is None:
            continue
        elsewhere = _text(other[key]) if _differs(key, value, other) else None
        section, _, inside = key.rpartition(".")
        sections.setdefault(section, []).append(Setting(inside, _text(value), elsewhere))
    count = sum(one.elsewhere is not None for section in sections.values() for one in section)
    return Settings(sections, name, count)


def nearest(recipe: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the shipped recipe from which fewest settings differ, and its name."""
    found: list[tuple[int, str, Mapping[str, Any]]] = []
    for name, path in shipped_recipes().items():
        try:
            other = _flat(path)
        except MaskRLError:
            continue  # one that needs what is not installed
        apart = sum(_differs(key, value, other) for key, value in recipe.items())
        missing = sum(key not in recipe for key in other)
        found.append((apart + missing, name, other))
    _, name, other = min(found, default=(0, "", {}), key=lambda one: one[:2])
    return name, other


def _flat(path: str | Path) -> Mapping[str, Any]:
    return flat(read_recipe(path, needs=Needs((), ())))


def _differs(key: str, value: Any, other: Mapping[str, Any]) -> bool:
    """Tell whether both say it, and not the same: what the other leaves to a component's default is not known."""
    return key in other and other[key] != value


def _text(value: Any) -> str:
    return "not set" if value is None else toml_value(value)
