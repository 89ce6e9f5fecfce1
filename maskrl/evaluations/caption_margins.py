"""Relative correctness: on images that show the right number, does a reward rank that number above half and twice it?

Source: Mask-GRPO (arXiv 2510.13418), section 4.4 and table 5: ten prompts, ten images each, three means. Beside those
means: margins paired by image, with intervals over prompts; how often the right caption wins; the same captions on
images of other classes, which is what the text does alone; and the ranking within groups, which is what training uses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.geneval.wording import NUMBERS, counted
from maskrl.types import Stream
from maskrl.uncertainty import influences, standard_error

RESAMPLES = 2000
_INTERVAL = torch.tensor((0.025, 0.975), dtype=torch.float64)

T = TypeVar("T")


@dataclass(frozen=True)
class Mean:
    """A mean over images; ``se`` takes the images of a prompt as one draw, NaN for a single prompt."""

    value: float
    se: float


@dataclass(frozen=True)
class Margin:
    """How far the caption with the right number is above another, image by image.

    ``se`` takes the images of a prompt as one draw, and ``low`` and ``high`` are the 95 % interval of the mean, by
    bootstrap over prompts; all NaN for a single prompt. ``wins`` is the share of images on which it is above; a tie is
    no win.
    """

    mean: float
    se: float
    low: float
    high: float
    wins: float


@dataclass(frozen=True)
class CaptionRow:
    """Scores of the captions with half, the same and double the number; ``top``: the right one is above both."""

    half: Mean
    same: Mean
    double: Mean
    over_half: Margin
    over_double: Margin
    top: float
    images: int
    prompts: int


@dataclass(frozen=True)
class Ranking:
    """The probability that of two images of one group, one right and one wrong, the right one scores higher.

    A tie is half a win. ``low`` and ``high`` are the 95 % interval by bootstrap over groups. ``groups`` and ``pairs``
    count what holds both kinds; without any, the numbers are NaN.
    """

    auc: float
    low: float
    high: float
    pairs: int
    groups: int


@dataclass(frozen=True)
class CaptionMargins:
    """The whole probe, ready for JSON.

    Attributes:
        numbers: a row for each number, as a text.
        pooled: all of them.
        control: the same captions on images of other classes.
        beyond_text: ``pooled`` minus ``control``, image by image: what looking at the right image adds.
        ranking: within groups.
    """

    numbers: Mapping[str, CaptionRow]
    pooled: CaptionRow
    control: CaptionRow
    beyond_text: CaptionRow
    ranking: Ranking

    @property
    def holds(self) -> bool:
        """Whether both pooled margins are above 0 with their intervals, and the ranking beats chance."""
        margins = (self.pooled.over_half, self.pooled.over_double)
        return all(margin.low > 0 for margin in margins) and self.ranking.auc > 0.5


def has_captions(number: int) -> bool:
    """Tell whether a number has a half that is one, and a double that has a word: 2, 4, 6, 8, 10."""
    return number % 2 == 0 and 2 <= number <= (len(NUMBERS) - 1) // 2


def captions(name: str, number: int) -> tuple[str, str, str]:
    """Return what is said of an image of ``number`` objects: half, the same and double, in GenEval's wording."""
    assert has_captions(number), number
    half, same, double = (f"a photo of {counted(n, name)}" for n in (number // 2, number, 2 * number))
    return half, same, double


def exchange(classes: Sequence[str], stream: Stream) -> list[int]:
    """Draw for every image another one, of another class: what is said of the first is not to be seen there.

    Raises:
        RecipeError: there is only one class.
    """
    rng = stream.generator()
    drawn = []
    for name in classes:
        others = [i for i, other in enumerate(classes) if other != name]
        if not others:
            raise RecipeError(f"the control needs images of a second class; all prompts ask for {name!r}")
        drawn.append(others[int(torch.randint(len(others), (), generator=rng))])
    return drawn


def summarise(
    scores: Tensor,
    control: Tensor,
    numbers: Sequence[int],
    prompts: Sequence[str],
    ranking: Ranking,
    stream: Stream,
) -> CaptionMargins:
    """Average the scores of K images.

    Args:
        scores: Float [K, 3], of the captions with half, the same and double the number.
        control: Float [K, 3], of the same captions on images of another class.
        numbers: of each image.
        prompts: of each image.
        ranking: within groups.
        stream: the randomness of the intervals.
    """
    rows = {}
    for number in sorted(set(numbers)):
        chosen = [i for i, other in enumerate(numbers) if other == number]
        rows[str(number)] = compare_captions(scores[chosen], [prompts[i] for i in chosen], stream)
    return CaptionMargins(
        numbers=rows,
        pooled=compare_captions(scores, prompts, stream),
        control=compare_captions(control, prompts, stream),
        beyond_text=compare_captions(scores - control, prompts, stream),
        ranking=ranking,
    )


def compare_captions(scores: Tensor, prompts: Sequence[str], stream: Stream) -> CaptionRow:
    """Average three scores an image, Float [K, 3], over K images."""
    scores = scores.double()
    half, same, double = scores.unbind(dim=1)
    return CaptionRow(
        half=_mean(half, prompts),
        same=_mean(same, prompts),
        double=_mean(double, prompts),
        over_half=_margin(same - half, prompts, stream),
        over_double=_margin(same - double, prompts, stream),
        top=float((same > torch.maximum(half, double)).double().mean()),
        images=len(scores),
        prompts=len(set(prompts)),
    )


def rank_groups(scores: Tensor, correct: Tensor, groups: Sequence[str], stream: Stream) -> Ranking:
    """Compare the right images of each group with its wrong ones: Float [K], Bool [K], and the group of each image."""
    won, pairs = [], []
    for members in _by_key(range(len(groups)), groups):
        right, wrong = (scores[[i for i in members if bool(correct[i]) == kind]] for kind in (True, False))
        if len(right) and len(wrong):
            difference = right[:, None] - wrong[None, :]
            won.append(float((difference > 0).sum() + 0.5 * (difference == 0).sum()))
            pairs.append(float(difference.numel()))
    if not pairs:
        return Ranking(math.nan, math.nan, math.nan, 0, 0)
    low, high = _interval(won, pairs, stream)
    return Ranking(sum(won) / sum(pairs), low, high, int(sum(pairs)), len(pairs))


def _mean(values: Tensor, prompts: Sequence[str]) -> Mean:
    by_prompt = _by_key(values.tolist(), prompts)
    return Mean(float(values.mean()), standard_error(influences(by_prompt)))


def _margin(values: Tensor, prompts: Sequence[str], stream: Stream) -> Margin:
    by_prompt = _by_key(values.tolist(), prompts)
    low, high = _interval([sum(some) for some in by_prompt], [float(len(some)) for some in by_prompt], stream)
    mean = _mean(values, prompts)
    return Margin(mean.value, mean.se, low, high, float((values > 0).double().mean()))


def _by_key(values: Sequence[T], keys: Sequence[str]) -> list[list[T]]:
    gathered: dict[str, list[T]] = defaultdict(list)
    for value, key in zip(values, keys, strict=True):
        gathered[key].append(value)
    return list(gathered.values())


def _interval(sums: Sequence[float], counts: Sequence[float], stream: Stream) -> tuple[float, float]:
    """Return the 95 % interval of sum(sums) / sum(counts), its terms drawn with replacement; NaN for a single term."""
    number = len(sums)
    if number < 2:
        return math.nan, math.nan
    drawn = torch.randint(
        number, (RESAMPLES, number), generator=stream.child("bootstrap", number).generator()
    )
    totals, sizes = (torch.tensor(terms, dtype=torch.float64)[drawn].sum(dim=1) for terms in (sums, counts))
    low, high = torch.quantile(totals / sizes, _INTERVAL).tolist()
    return low, high
