"""A card, run as a sweep of one variant; and before that, whether this machine can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from maskrl.doctor.needs import needs
from maskrl.errors import TrainingError
from maskrl.recipe import Recipe
from maskrl.reproductions.card import Card
from maskrl.sweeps.cells import Row
from maskrl.sweeps.running import run_sweep


def run_card(
    card: Card, out: Path, seeds: int, smoke: bool, jobs: int | None, say: Callable[[str], None]
) -> list[Row]:
    """Run what a card says, or go on with it, and return the rows of the sweep that it is.

    Args:
        card: what.
        out: the sweep's folder, absolute.
        seeds: how many of the card's, from the first on.
        smoke: whether to run a minute of it.
        jobs: runs at a time; None: as a sweep has it.
        say: called with a line for a person.

    Raises:
        RecipeError: the folder holds something else, or the card is of what there is no more.
        TrainingError: this machine cannot run it; the message says what is missing, and what to do.
    """
    sweep = card.sweep(seeds, smoke)
    _check(card, sweep.variants[0].recipe)
    return run_sweep(sweep, out, jobs, say)


def _check(card: Card, recipe: Recipe) -> None:
    if card.file.gpu and not torch.cuda.is_available():
        raise TrainingError(
            f"{card.name} needs {card.file.hardware}, and torch sees none: run it where there is one; what else is"
            f" missing: maskrl doctor --recipe {card.file.recipe}"
        )
    lacking = [f"{one.text}: {one.advice}" for one in needs(recipe) if one.status == "missing"]
    if lacking:
        raise TrainingError("\n".join(f"{card.name}: {line}" for line in lacking))
