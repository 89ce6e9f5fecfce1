"""Two results side by side: the difference of every number with its uncertainty, and what papers report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrl.evals import results
from maskrl.evals.results import Number, Result
from maskrl.geneval.scoring import TASKS
from maskrl.geneval.summary import standard_error

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """One number of two results; ``difference`` is second minus first."""

    name: str
    first: Number
    second: Number
    difference: Number


@dataclass(frozen=True)
class Published:
    """A row of a paper."""

    name: str
    numbers: Mapping[str, float]


def _geneval(name: str, *values: float) -> Published:
    return Published(name, dict(zip((*TASKS, "overall"), values, strict=True)))


# Source: Mask-GRPO (arXiv 2510.13418), tables 1, 2 and 4. A reader must know that the base's FID there is not what the
# released checkpoint gives: docs/evaluation.md.
PUBLISHED: dict[tuple[str, str], tuple[Published, ...]] = {
    ("geneval", "GenEval"): (
        _geneval("Show-o", 0.95, 0.52, 0.49, 0.82, 0.11, 0.28, 0.53),
        _geneval("Show-o + Mask-GRPO", 0.99, 0.90, 0.69, 0.85, 0.35, 0.59, 0.73),
    ),
    ("fid", "FID-30K (t2ibenchmark)"): (
        Published("Show-o", {"fid": 9.24}),
        Published("Show-o + Mask-GRPO", {"fid": 8.32}),
    ),
    ("image_reward", "ImageReward"): (
        Published("Show-o", {"mean": 1.02}),
        Published("Show-o + Mask-GRPO", {"mean": 1.23}),
    ),
}


def compare_files(first: Path, second: Path) -> tuple[Result, Result, list[Line]]:
    """Read two results and compare them; image by image where both have rows of the same images.

    Raises:
        RecipeError: one is missing, or they were not measured alike.
        TrainingError: one is damaged.
    """
    before, after = results.read_result(first), results.read_result(second)
    results.check_comparable(before, after)
    paired = _paired(before.evaluation, first, second)
    lines = []
    for name, old in before.numbers.items():
        new = after.numbers[name]
        apart = Number(new.mean - old.mean, math.hypot(old.se, new.se))
        lines.append(Line(name, old, new, paired.get(name, apart)))
    return before, after, lines


def _paired(evaluation: str, first: Path, second: Path) -> dict[str, Number]:
    """Return the differences whose uncertainty can be had prompt by prompt, which leaves out what prompts differ in."""
    if not all((path / results.ROWS).is_file() for path in (first, second) if path.is_dir()):
        return {}
    if not (first.is_dir() and second.is_dir()):
        return {}
    old, new = (results.read_rows(path) for path in (first, second))
    if [row["filename"] for row in old] != [row["filename"] for row in new]:
        return {}
    if evaluation != "geneval":
        return {"mean": _difference(old, new, "score")}
    tasks = {task: _difference(_of(old, task), _of(new, task), "correct") for task in TASKS}
    overall = Number(
        sum(task.mean for task in tasks.values()) / len(TASKS),
        math.sqrt(sum(task.se**2 for task in tasks.values())) / len(TASKS),
    )
    return {"overall": overall, **tasks}


def _of(rows: Sequence[Row], task: str) -> list[Row]:
    return [row for row in rows if row["tag"] == task]


def _difference(old: Sequence[Row], new: Sequence[Row], key: str) -> Number:
    gains: dict[str, list[float]] = defaultdict(list)
    for before, after in zip(old, new, strict=True):
        gains[before["filename"].partition("/")[0]].append(float(after[key]) - float(before[key]))
    means = [sum(gain) / len(gain) for gain in gains.values()]
    return Number(sum(means) / len(means), standard_error(means))
