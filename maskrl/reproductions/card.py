"""A card, read: what was run, on what, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

import maskrl
from maskrl import mistakes, recipe_file
from maskrl.component import ComponentConfig, validate
from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.registry import nearest
from maskrl.sweeps.file import Seed, Sweep, Variant, flattened, read_sweep

CARDS = Path(__file__).parent / "cards"


class Expected(ComponentConfig):
    """A number's gain, after less before: the mean of the card's seeds, and half of its 95 % interval.

    Without ``interval`` it is a single run's, and nobody can say how near another should come.
    """

    gain: float
    interval: float | None = Field(default=None, gt=0)


class CardFile(ComponentConfig):
    """What a card says.

    It is of a ``variant`` of a ``study``, or of a ``recipe``. ``hours`` are those of all seeds one after the other.
    ``smoke`` is what a minute of it has otherwise, as a sweep's variant writes it. ``expected`` has numbers by
    the names that a sweep gives them; ``source`` is where they are from.
    """

    title: str
    study: str | None = None
    variant: str | None = None
    recipe: str | None = None
    seeds: tuple[Seed, ...] = Field(min_length=1)
    hardware: str
    gpu: bool = False
    hours: float = Field(gt=0)
    source: str
    expected: dict[str, Expected] = Field(default_factory=dict)
    smoke: dict[str, Any]

    @model_validator(mode="after")
    def _is_of_something(self) -> Self:
        if (self.study is None) != (self.variant is None) or (self.study is None) == (self.recipe is None):
            raise ValueError("a card is of a recipe, or of a study and one of its variants")
        return self


@dataclass(frozen=True)
class Card:
    """A card and its name."""

    name: str
    text: str
    file: CardFile

    def sweep(self, seeds: int, smoke: bool) -> Sweep:
        """Return what is run: one variant, with the first of the card's seeds.

        Raises:
            RecipeError: the study or the recipe has no such thing any more.
        """
        file, more = self.file, tuple(flattened(self.file.smoke)) if smoke else ()
        if file.study is not None:
            variants = read_sweep(studies() / f"{file.study}.toml", file.variant, more).variants
        else:
            variants = (Variant(self.name, more, read_recipe(str(file.recipe), more)),)
        return Sweep(self.text, file.seeds[:seeds], None, variants)


def cards() -> dict[str, Path]:
    """Return the cards that come with maskrl, by name."""
    return {path.stem: path for path in sorted(CARDS.glob("*.toml"))}


def read_card(name: str) -> Card:
    """Read a card by its name.

    Raises:
        RecipeError: there is none.
    """
    known = cards()
    if name not in known:
        raise RecipeError(f"there is no card {name!r}{nearest(name, known)} (cards: {', '.join(known)})")
    path = known[name]
    try:
        file = validate(CardFile, recipe_file.read_toml(path), {})
    except ValidationError as error:
        raise RecipeError(
            "\n".join(f"{path}: {line}" for line in mistakes.lines(error.errors(), {}))
        ) from error
    return Card(name, path.read_text(encoding="utf-8"), file)


def studies() -> Path:
    """Return the folder of the studies that come with maskrl: in the wheel, or in a clone."""
    package = Path(maskrl.__file__).parent
    shipped = package / "studies"
    return shipped if shipped.is_dir() else package.parent / "benchmarks" / "studies"
