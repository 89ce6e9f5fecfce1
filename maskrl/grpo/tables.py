"""Functions that a recipe chooses by name: each name stands once, in the table that has the function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import AfterValidator

from maskrl.errors import RecipeError
from maskrl.registry import nearest

F = TypeVar("F")


def look_up(table: Mapping[str, F], name: str, what: str) -> F:
    """Return what a table has under a name.

    Raises:
        RecipeError: nothing; the message has the nearest name, and all of them.
    """
    if name not in table:
        raise RecipeError(
            f"no {what} is called {name!r}{nearest(name, table)} (there are: {', '.join(table)})"
        )
    return table[name]


def name_of(table: Mapping[str, object], what: str) -> AfterValidator:
    """Annotate a setting that names something in a table; None may stand for the default."""

    def check(name: str | None) -> str | None:
        if name is not None:
            look_up(table, name, what)
        return name

    return AfterValidator(check)
