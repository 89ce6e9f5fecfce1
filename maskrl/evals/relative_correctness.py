"""Relative correctness: on images that show the right number, does a reward rank that number above half and twice it?

Source: Mask-GRPO (arXiv 2510.13418), section 4.4 and table 5: ten prompts, ten images each, three means. Beside those
means: margins paired by image, with intervals over prompts; how often the right caption wins; the same captions on
images of other classes, which is what the text does alone; and the ranking within groups, which is what training uses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from maskrl.errors import RecipeError, TrainingError
from maskrl.geneval.summary import standard_error
from maskrl.geneval.wording import NUMBERS, counted
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt, Stream

RESAMPLES = 2000
_INTERVAL = torch.tensor((0.025, 0.975), dtype=torch.float64)

T = TypeVar("T")


@dataclass(frozen=True)
class Picture:
    """An image that shows exactly ``number`` objects of a class.

    ``image`` Float [3, H, W] in [0, 1]; ``prompt`` is what it was painted from: images that share it are one draw.
    """

    image: Tensor
    name: str
    number: int
    prompt: str


@dataclass(frozen=True)
class Mean:
    """A mean over images; ``se`` takes the images of a prompt as one draw, NaN for a single prompt."""

    value: float
    se: float


@dataclass(frozen=True)
class Margin:
    """How far the caption with the right number is above another, image by image.

    ``low`` and ``high`` are the 95 % interval of the mean, by bootstrap over prompts, NaN for a single prompt. ``wins``
    is the share of images on which it is above; a tie is no win.
    """

    mean: float
    low: float
    high: float
    wins: float


@dataclass(frozen=True)
class Row:
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
class RelativeCorrectness:
    """The whole probe, ready for JSON.

    Attributes:
        numbers: a row for each number, as a text.
        pooled: all of them.
        control: the same captions on images of other classes.
        beyond_text: ``pooled`` minus ``control``, image by image: what looking at the right image adds.
        ranking: within groups.
    """

    numbers: Mapping[str, Row]
    pooled: Row
    control: Row
    beyond_text: Row
    ranking: Ranking

    @property
    def holds(self) -> bool:
        """Whether both pooled margins are above 0 with their intervals, and the ranking beats chance."""
        margins = (self.pooled.over_half, self.pooled.over_double)
        return all(margin.low > 0 for margin in margins) and self.ranking.auc > 0.5


def captions(name: str, number: int) -> tuple[str, str, str]:
    """Return what is said of an image of ``number`` objects: half, the same and double, in GenEval's wording.

    Raises:
        RecipeError: ``number`` is odd or less than 2, or its double has no word.
    """
    largest = (len(NUMBERS) - 1) // 2
    if number % 2 or not 2 <= number <= largest:
        raise RecipeError(
            f"relative correctness takes even numbers in [2, {largest}]: {number} {name!r} has no half or no double"
        )
    half, same, double = (f"a photo of {counted(n, name)}" for n in (number // 2, number, 2 * number))
    return half, same, double


def score_captions(reward: RewardModel, pictures: Sequence[Picture], batch: int) -> Tensor:
    """Score every picture with its three captions, ``batch`` pictures at a time: Float [K, 3], fp32, on the CPU.

    Raises:
        RecipeError: a picture's number has no half or no double.
    """
    texts = [captions(picture.name, picture.number) for picture in pictures]
    scores = []
    for start in range(0, len(pictures), batch):
        part = slice(start, start + batch)
        images = torch.stack([picture.image for picture in pictures[part]]).repeat_interleave(3, dim=0)
        prompts = [Prompt(text) for three in texts[part] for text in three]
        scores.append(reward.score(images, prompts).cpu().view(-1, 3))
    return torch.cat(scores)


def exchange_images(pictures: Sequence[Picture], stream: Stream) -> list[Picture]:
    """Give every picture a random image of another class; its captions then name what is not there.

    Raises:
        TrainingError: there is only one class.
    """
    rng = stream.generator()
    exchanged = []
    for picture in pictures:
        others = [other.image for other in pictures if other.name != picture.name]
        if not others:
            raise TrainingError(f"the control needs images of a second class; all show {picture.name!r}")
        chosen = int(torch.randint(len(others), (), generator=rng))
        exchanged.append(replace(picture, image=others[chosen]))
    return exchanged


def measure(
    reward: RewardModel, pictures: Sequence[Picture], ranking: Ranking, stream: Stream, batch: int
) -> RelativeCorrectness:
    """Run the probe on pictures that show the right number.

    Args:
        reward: what is probed.
        pictures: of several prompts and classes.
        ranking: what :func:`rank_groups` says of all images, the wrong ones among them.
        stream: the randomness of the control and of the intervals.
        batch: pictures at a time; memory and speed only.

    Raises:
        RecipeError: a picture's number has no half or no double.
        TrainingError: there is no picture, or only one class.
    """
    if not pictures:
        raise TrainingError("relative correctness needs images that show the right number; there are none")
    scores = score_captions(reward, pictures, batch)
    control = score_captions(reward, exchange_images(pictures, stream.child("control")), batch)
    numbers = [picture.number for picture in pictures]
    prompts = [picture.prompt for picture in pictures]
    return summarise(scores, control, numbers, prompts, ranking, stream)


def summarise(
    scores: Tensor,
    control: Tensor,
    numbers: Sequence[int],
    prompts: Sequence[str],
    ranking: Ranking,
    stream: Stream,
) -> RelativeCorrectness:
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
    return RelativeCorrectness(
        numbers=rows,
        pooled=compare_captions(scores, prompts, stream),
        control=compare_captions(control, prompts, stream),
        beyond_text=compare_captions(scores - control, prompts, stream),
        ranking=ranking,
    )


def compare_captions(scores: Tensor, prompts: Sequence[str], stream: Stream) -> Row:
    """Average three scores an image, Float [K, 3], over K images."""
    scores = scores.double()
    half, same, double = scores.unbind(dim=1)
    return Row(
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
    return Mean(float(values.mean()), standard_error([sum(some) / len(some) for some in by_prompt]))


def _margin(values: Tensor, prompts: Sequence[str], stream: Stream) -> Margin:
    by_prompt = _by_key(values.tolist(), prompts)
    low, high = _interval([sum(some) for some in by_prompt], [float(len(some)) for some in by_prompt], stream)
    return Margin(float(values.mean()), low, high, float((values > 0).double().mean()))


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
