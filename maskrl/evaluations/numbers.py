"""From rows to numbers: means over images, and differences of two results, each prompt paired with itself."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from maskrl.evaluations import answers
from maskrl.interfaces import ImageEvaluation, Number, Row
from maskrl.uncertainty import influences, standard_error

Values = dict[str, dict[str, list[float]]]  # what a mean is of, by its name and by prompt


def gather(kind: type[ImageEvaluation], rows: Sequence[Row]) -> Values:
    """Return what every mean is of.

    Raises:
        PluginError: the evaluation answers wrongly.
    """
    gathered: Values = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in answers.values(kind, row).items():
            gathered[name][row["filename"].partition("/")[0]].append(value)
    return gathered


def means(values: Values) -> dict[str, Number]:
    """Average over images, with standard errors over prompts."""
    found = {}
    for name, by_prompt in values.items():
        every = [value for of_prompt in by_prompt.values() for value in of_prompt]
        error = standard_error(influences(list(by_prompt.values())))
        found[name] = Number(sum(every) / len(every), error)
    return found


def numbers(evaluation: ImageEvaluation, rows: Sequence[Row]) -> dict[str, Number]:
    """Return the numbers of an evaluation, the headline first.

    Raises:
        PluginError: it answers wrongly.
    """
    others = answers.others(evaluation, rows)  # first: it sees all rows, and may refuse them
    found = answers.combine(type(evaluation), means(gather(type(evaluation), rows)))
    return {**found, **{name: Number(value, math.nan) for name, value in others.items()}}


def average(numbers: Sequence[Number]) -> Number:
    """Average independent numbers, unweighted."""
    mean = sum(number.mean for number in numbers) / len(numbers)
    return Number(mean, math.sqrt(sum(number.se**2 for number in numbers)) / len(numbers))


def written(number: Number, sign: bool = False) -> str:
    """Write a number with its standard error, if it has one: ``0.354 ± 0.014``."""
    mean = f"{number.mean:+.3f}" if sign else f"{number.mean:.3f}"
    return mean if math.isnan(number.se) else f"{mean} ± {number.se:.3f}"


def differences(
    kind: type[ImageEvaluation], before: Sequence[Row], after: Sequence[Row]
) -> dict[str, Number]:
    """Subtract the numbers of two results of the same images, after minus before, each prompt paired with itself.

    Raises:
        PluginError: the evaluation answers wrongly.
    """
    old, new = gather(kind, before), gather(kind, after)
    names = [name for name in old if name in new]
    return answers.combine(kind, {name: _difference(old[name], new[name]) for name in names})


def _difference(old: Mapping[str, list[float]], new: Mapping[str, list[float]]) -> Number:
    """Subtract two means over images, whose prompts are the independent draws.

    A prompt may have more images in one than in the other, or none: each mean is the ratio of two sums over prompts,
    and its error is taken to first order.
    """
    prompts = sorted({*old, *new})
    both = [[values.get(prompt, []) for prompt in prompts] for values in (old, new)]
    before, after = (sum(map(sum, values)) / sum(map(len, values)) for values in both)
    apart = zip(*map(influences, both), strict=True)
    return Number(after - before, standard_error([second - first for first, second in apart]))
