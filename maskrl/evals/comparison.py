"""Two results side by side: the difference of every number with its uncertainty, and what papers report.

Both are of the same prompts from the same noise, so the uncertainty is that of the differences, prompt by prompt: what
prompts differ in is left out. It takes the rows beside the numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrl.errors import TrainingError
from maskrl.evals import results
from maskrl.evals.results import Number, Result
from maskrl.geneval.metadata import TASKS
from maskrl.geneval.official_prompts import OFFICIAL_IMAGES
from maskrl.geneval.summary import influences, standard_error

_ROUNDING = 1e-6
Row = Mapping[str, Any]
PromptValues = dict[str, list[float]]  # what a mean over images is of: the values of each prompt


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


def published(result: Result) -> tuple[Published, ...]:
    """Return what papers report of what a result measured: of GenEval, only of all its prompts, four images each."""
    if result.evaluation == "geneval" and result.images != OFFICIAL_IMAGES:
        return ()
    return PUBLISHED.get((result.evaluation, result.label), ())


def compare_files(first: Path, second: Path) -> tuple[Result, Result, list[Line]]:
    """Read two results and compare them; prompt by prompt where both have rows of the same images.

    Raises:
        RecipeError: one is missing, or they were not measured alike.
        TrainingError: one is damaged.
    """
    before, after = results.read_result(first), results.read_result(second)
    results.check_comparable(before, after)
    errors = _paired_errors(before, after, first, second)
    lines = []
    for name, old in before.numbers.items():
        new = after.numbers[name]
        error = errors.get(name, math.hypot(old.se, new.se))
        lines.append(Line(name, old, new, Number(new.mean - old.mean, error)))
    return before, after, lines


def _paired_errors(
    first_result: Result, second_result: Result, first: Path, second: Path
) -> dict[str, float]:
    """Return the standard errors of the differences that can be had prompt by prompt.

    Raises:
        TrainingError: rows are damaged, or have not the number or the means that stand in the summary beside them.
    """
    evaluation = first_result.evaluation
    old, new = _rows(first, first_result), _rows(second, second_result)
    try:
        before, after = _gather(evaluation, old), _gather(evaluation, new)
        for result, rows, values, path in (
            (first_result, old, before, first),
            (second_result, new, after, second),
        ):
            if rows:
                _check_count(result, len(rows), path)
                _check_means(result, values, path)
        if not old or [row["filename"] for row in old] != [row["filename"] for row in new]:
            return {}
        errors = {name: _error(before[name], after[name]) for name in before.keys() & after.keys()}
        if evaluation == "geneval":
            errors["overall"] = math.sqrt(sum(errors[task] ** 2 for task in TASKS)) / len(TASKS)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the rows beside {str(first)!r} or {str(second)!r} are damaged: {error!r}"
        ) from error
    return errors


def _check_count(result: Result, rows: int, path: Path) -> None:
    if rows != result.images:
        raise TrainingError(
            f"beside {str(path)!r} are {rows} rows, and its {results.RESULT} says {result.images} images: one of the"
            " two files was changed; evaluate again"
        )


def _means(evaluation: str, values: Mapping[str, PromptValues]) -> dict[str, float]:
    """Return the mean over images of every number that rows give, GenEval's headline among them."""
    images = {name: [v for prompt in prompts.values() for v in prompt] for name, prompts in values.items()}
    means = {name: sum(some) / len(some) for name, some in images.items()}
    if evaluation == "geneval":
        means["overall"] = sum(means[task] for task in TASKS) / len(TASKS)
    return means


def _check_means(result: Result, values: Mapping[str, PromptValues], path: Path) -> None:
    for name, mean in _means(result.evaluation, values).items():
        if name not in result.numbers:
            continue
        if abs(mean - result.numbers[name].mean) > _ROUNDING * max(1.0, abs(mean)):
            raise TrainingError(
                f"the rows beside {str(path)!r} give {name} = {mean:.6g}, and its {results.RESULT} says"
                f" {result.numbers[name].mean:.6g}: one of the two files was changed; evaluate again"
            )


def _rows(path: Path, result: Result) -> list[dict[str, Any]]:
    """Read the rows beside a ``summary.json``; none where there are none."""
    if not path.is_dir() and path.name != results.RESULT:
        return []  # what lies beside a copy under another name is not its own
    folder = path if path.is_dir() else path.parent
    return results.read_rows(folder, result) if (folder / results.ROWS).is_file() else []


def _gather(evaluation: str, rows: Sequence[Row]) -> dict[str, PromptValues]:
    """Return what every number is the mean of."""
    gathered: dict[str, PromptValues] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in _values(evaluation, row).items():
            gathered[name][row["filename"].partition("/")[0]].append(value)
    return gathered


def _values(evaluation: str, row: Row) -> dict[str, float]:
    """Return what an image adds to the means that it is in."""
    if evaluation == "geneval":
        return {row["tag"]: float(row["correct"])}
    if evaluation != "relative_correctness":
        return {"mean": row["score"]}
    if not row["correct"]:
        return {}
    half, same, double = row["captions"]
    values = {"half": half, "same": same, "double": double}
    own, control = (_margins(row[key]) for key in ("captions", "captions_on_control"))
    for name in own:
        values |= {name: own[name], f"control_{name}": control[name]}
        values[f"beyond_text_{name}"] = own[name] - control[name]
    return values


def _margins(captions: Sequence[float]) -> dict[str, float]:
    half, same, double = captions
    return {"over_half": same - half, "over_double": same - double}


def _error(old: PromptValues, new: PromptValues) -> float:
    """Return the standard error of the difference of two means over images, whose prompts are the independent draws.

    A prompt may have more images in one than in the other, or none: each mean is the ratio of two sums over prompts,
    and its error is taken to first order.
    """
    prompts = sorted({*old, *new})
    apart = zip(*(influences([values.get(p, []) for p in prompts]) for values in (old, new)), strict=True)
    return standard_error([after - before for before, after in apart])
