"""The file of a sweep: a recipe, seeds, and tables of what each variant has otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from maskrl import mistakes, recipe_file
from maskrl.component import ComponentConfig, Label, validate
from maskrl.errors import RecipeError
from maskrl.recipe import Recipe, read_recipe
from maskrl.registry import nearest

Seed = Annotated[int, Field(ge=0)]
Overrides = dict[str, Any]


class SweepFile(ComponentConfig):
    """What a file says: every variant is trained once with each seed.

    ``recipe`` is a file beside this one, or the name of a recipe that comes with maskrl; ``common`` are overrides of it
    that all variants share, ``variants`` those of each, by its name. A table that has a ``name`` takes the place of
    the recipe's section, as another component has other settings; other tables change single keys; ``""`` restores a
    default. ``baseline`` names the variant that the others are compared with.
    """

    recipe: str
    seeds: tuple[Seed, ...] = Field(min_length=1)
    baseline: Label | None = None
    common: Overrides = Field(default_factory=dict)
    variants: dict[Label, Overrides] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands there twice; a seed is one draw, however often it is run")
        if self.baseline is not None and self.baseline not in self.variants:
            hint = nearest(self.baseline, self.variants)
            raise ValueError(f"baseline: there is no variant {self.baseline!r}{hint}")
        for name, table in {"common": self.common, **self.variants}.items():
            if "seed" in table:
                raise ValueError(f"{name}: seed is the sweep's own: write it into seeds")
        return self


@dataclass(frozen=True)
class Variant:
    """One of the recipes of a sweep; ``overrides`` as ``--set`` takes them."""

    name: str
    overrides: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    """A sweep, read; ``text`` is its file's."""

    text: str
    seeds: tuple[int, ...]
    baseline: str | None
    variants: tuple[Variant, ...]


def read_sweep(path: Path, only: str | None = None, more: Sequence[str] = ()) -> Sweep:
    """Read a sweep and the recipes of its variants.

    Args:
        path: of its file.
        only: the one variant that is wanted; None: all.
        more: overrides of every variant, behind its own.

    Raises:
        RecipeError: there is no such file, it is no TOML, or it or one of the recipes holds mistakes.
        PluginError: a component does not import.
    """
    if not path.is_file():
        raise RecipeError(f"there is no sweep {str(path)!r}: name its TOML file")
    path = path.absolute()
    data = recipe_file.read_toml(path)
    try:
        found = validate(SweepFile, data, {})
    except ValidationError as error:
        known = [list(SweepFile.model_fields)] * error.error_count()
        said = mistakes.lines(error.errors(), data, known)
        raise RecipeError("\n".join(f"{path}: {line}" for line in said)) from error
    if only is not None and only not in found.variants:
        raise RecipeError(f"{path}: there is no variant {only!r}{nearest(only, found.variants)}")
    names = found.variants if only is None else [only]
    variants = tuple(_variant(path, found, name, more) for name in names)
    return Sweep(path.read_text(encoding="utf-8"), found.seeds, found.baseline, variants)


def _variant(path: Path, found: SweepFile, name: str, more: Sequence[str]) -> Variant:
    overrides = (*flattened(found.common), *flattened(found.variants[name]), *more)
    beside = path.parent / found.recipe
    try:
        recipe = read_recipe(beside if beside.is_file() else found.recipe, overrides, typed_in=path.parent)
    except RecipeError as error:
        said = [f"{path}: variants.{name}: {line}" for line in str(error).splitlines()]
        raise RecipeError("\n".join(said)) from error
    return Variant(name, overrides, recipe)


def flattened(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield what a table says, as ``--set`` takes it."""
    for key, value in table.items():
        if isinstance(value, Mapping) and "name" not in value:
            yield from flattened(value, f"{above}{key}.")
        else:
            yield f"{above}{key}={'' if value == '' else recipe_file.toml_value(value)}"
