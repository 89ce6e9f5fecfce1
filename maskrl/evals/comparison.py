"""Two results side by side: the difference of every number with its uncertainty, and what papers report.

Both are of the same prompts from the same noise, so the uncertainty is that of the differences, prompt by prompt: what
prompts differ in is left out. It takes the rows beside the numbers, and the evaluation's class, which knows them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskrl import registry
from maskrl.errors import PluginError, RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.results import Report, Result
from maskrl.evaluations import answers
from maskrl.evaluations.numbers import differences, gather, means
from maskrl.interfaces import Evaluation, ImageEvaluation, Number, Published

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Line:
    """One number of two results; ``difference`` is second minus first."""

    name: str
    first: Number
    second: Number
    difference: Number


@dataclass(frozen=True)
class Comparison:
    """Two results, number by number.

    Attributes:
        first, second: the results.
        lines: the headline first.
        published: what papers report of this.
        is_known: whether the evaluation is installed: without its class nothing is paired.
    """

    first: Result
    second: Result
    lines: Sequence[Line]
    published: Sequence[Published]
    is_known: bool


def compare_files(first: Path, second: Path) -> Comparison:
    """Read two results and compare them; prompt by prompt where both have rows of the same images.

    Raises:
        RecipeError: one is missing, or they were not measured alike.
        TrainingError: one is damaged.
    """
    before, after = (_read(path) for path in (first, second))
    results.check_comparable(before.result, after.result)
    kind = class_of(before.result)
    lines = _lines(before, after, _paired(kind, before, after, first, second))
    published = () if kind is None else kind.published(before.result.label, before.result.images)
    return Comparison(before.result, after.result, lines, published, kind is not None)


def compare(
    kind: type[Evaluation], before: Report, after: Report, apart_from: Collection[str] = ()
) -> list[Line]:
    """Compare two reports of one evaluation, prompt by prompt.

    Raises:
        RecipeError: they differ in more than the generator and the settings in ``apart_from``.
    """
    results.check_comparable(before.result, after.result, apart_from)
    return _lines(before, after, _differences(kind, before, after))


def class_of(result: Result) -> type[Evaluation] | None:
    """Return the class that measured; None where it is not installed, or does not load: no file is run for it."""
    if registry.is_local(result.evaluation):
        return None
    for name in (result.evaluation, f"maskrl/{result.evaluation}"):  # its own, where two packages offer it
        try:
            found: type[Evaluation] = registry.load("evaluations", name)
        except (RecipeError, PluginError):
            continue  # results can be compared without it, less sharply: the caller says so
        return found
    return None


def _lines(before: Report, after: Report, paired: dict[str, Number]) -> list[Line]:
    lines = []
    if next(iter(before.numbers)) not in after.numbers:
        raise RecipeError(
            f"these results cannot be compared: one has {', '.join(before.numbers)}, the other"
            f" {', '.join(after.numbers)}"
        )
    for name, old in before.numbers.items():
        if name not in after.numbers:
            continue  # an evaluation may have nothing to say of it
        new = after.numbers[name]
        error = paired[name].se if name in paired else math.hypot(old.se, new.se)
        lines.append(Line(name, old, new, Number(new.mean - old.mean, error)))
    return lines


def _differences(kind: type[Evaluation] | None, before: Report, after: Report) -> dict[str, Number]:
    if kind is None or not issubclass(kind, ImageEvaluation) or not before.rows:
        return {}
    if [row["filename"] for row in before.rows] != [row["filename"] for row in after.rows]:
        return {}
    return differences(kind, before.rows, after.rows)


def _paired(
    kind: type[Evaluation] | None, before: Report, after: Report, first: Path, second: Path
) -> dict[str, Number]:
    """Return the differences that can be had prompt by prompt.

    Raises:
        TrainingError: rows are damaged, or have not the means that stand in the summary beside them.
    """
    try:
        if kind is not None and issubclass(kind, ImageEvaluation):
            for report, path in ((before, first), (after, second)):
                _check_means(kind, report, path)
        return _differences(kind, before, after)
    except (KeyError, TypeError, ValueError, PluginError) as error:
        raise TrainingError(
            f"the rows beside {str(first)!r} or {str(second)!r} are damaged: {error!r}"
        ) from error


def _check_means(kind: type[ImageEvaluation], report: Report, path: Path) -> None:
    if not report.rows:
        return
    for name, number in answers.combine(kind, means(gather(kind, report.rows))).items():
        if name in report.numbers and not _is_close(number.mean, report.numbers[name].mean):
            raise TrainingError(
                f"the rows beside {str(path)!r} give {name} = {number.mean:.6g}, and its {results.RESULT} says"
                f" {report.numbers[name].mean:.6g}: one of the two files was changed; evaluate again"
            )


def _is_close(first: float, second: float) -> bool:
    return abs(first - second) <= _ROUNDING * max(1.0, abs(first))


def _read(path: Path) -> Report:
    """Read a result, and the rows beside a ``summary.json``; none where there are none."""
    result = results.read_result(path)
    if not path.is_dir() and path.name != results.RESULT:
        return Report(result, ())  # what lies beside a copy under another name is not its own
    folder = path if path.is_dir() else path.parent
    rows = results.read_rows(folder, result) if (folder / results.ROWS).is_file() else []
    if rows and len(rows) != result.images:
        raise TrainingError(
            f"beside {str(path)!r} are {len(rows)} rows, and its {results.RESULT} says {result.images} images: one"
            " of the two files was changed; evaluate again"
        )
    return Report(result, tuple(rows))
