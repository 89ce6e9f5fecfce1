"""How sure a mean over images is, whose prompts are the independent draws."""

from __future__ import annotations

import math
from collections.abc import Sequence


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of independent values; NaN for a single one."""
    number = len(values)
    if number < 2:
        return math.nan
    mean = sum(values) / number
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (number - 1) / number)


def influences(by_prompt: Sequence[Sequence[float]]) -> list[float]:
    """Return how far each prompt moves the mean over all images, to first order; the mean over the prompts is 0.

    Prompts are the independent draws, and may have different numbers of images, or none: the mean over images is then
    the ratio of two sums over prompts.
    """
    images = [value for values in by_prompt for value in values]
    mean = sum(images) / len(images)
    share = len(by_prompt) / len(images)
    return [share * sum(value - mean for value in values) for values in by_prompt]
