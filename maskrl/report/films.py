"""How an image was unmasked, for the page: the step, the probability and the part in the loss of every token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 3


@dataclass(frozen=True)
class Film:
    """N tokens in rows of ``columns``, in the order of the tokens.

    Attributes:
        image: its place in the group.
        columns: of the grid; of tokens that have none, of a drawing that is about square.
        lies_on_image: whether a token has its place in the image.
        steps: T.
        revealed_in: the step of each token, from 0.
        p: the probability of each token's code when it came.
        part: what each token has in the loss; None where the steps that were scored are not those that painted.
    """

    image: int
    columns: int
    lies_on_image: bool
    steps: int
    revealed_in: Sequence[int]
    p: Sequence[float]
    part: Sequence[float] | None

    @property
    def drawn(self) -> Mapping[str, Any]:
        """What the page's script draws."""
        return {"columns": self.columns, "step": self.revealed_in, "p": self.p, "part": self.part}


def read_film(record: Any, grid: Sequence[int] | None) -> Film:
    """Read a film as :func:`maskrl.training.film.films` records it.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is damaged.
    """
    steps = [int(step) for step in record["revealed_in"]]
    logp, lesson = [float(value) for value in record["logp"]], record["lesson"]
    columns = grid[1] if grid else math.ceil(math.sqrt(len(steps)))
    if len(logp) != len(steps) or min(steps) < 0 or (grid and grid[0] * grid[1] != len(steps)):
        raise ValueError("a film's tokens do not agree")
    part = (
        None if lesson is None else [-lesson[step] * value for step, value in zip(steps, logp, strict=True)]
    )
    return Film(
        image=record["image"],
        columns=columns,
        lies_on_image=grid is not None,
        steps=max(steps) + 1,
        revealed_in=steps,
        p=[round(math.exp(value), DIGITS) for value in logp],
        part=None if part is None else [round(value, DIGITS) for value in part],
    )
