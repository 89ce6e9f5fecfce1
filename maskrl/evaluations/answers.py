"""What evaluations answer, looked at once, and refused with their names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.errors import RecipeError
from maskrl.grpo.answers.rewards import TERM
from maskrl.grpo.config import Sampling
from maskrl.interfaces import DistributionEvaluation, Evaluation, ImageEvaluation, Number, Row
from maskrl.types import Prompt

TAKEN = ("se", "when")  # by the standard error of the headline in a run's metrics, and by what says when
FILENAME = "filename"
PAINTING = {  # settings that say how images came about: the engine's
    *(field.name for field in fields(Sampling)),
    *("precision", "prompts_sha256", "images_per_prompt", "num_steps", "guidance", "seed", "stream"),
    *("images", "formats", "generator"),
}


def prompts(evaluation: type[Evaluation]) -> list[Prompt]:
    """Ask what is painted where nobody names prompts.

    Raises:
        PluginError: it is no list of prompts.
    """
    with asking(evaluation):
        found = list(evaluation.prompts())
    if not all(isinstance(prompt, Prompt) for prompt in found):
        raise refused(evaluation, "prompts returned something else than Prompt objects")
    return found


def check(evaluation: Evaluation, asked: Sequence[Prompt]) -> None:
    """Ask whether it can be done; errors of maskrl's tree pass."""
    with asking(evaluation):
        evaluation.check(asked)


def wanted(evaluation: type[Evaluation], asked: Sequence[Prompt]) -> list[Prompt]:
    """Leave out the prompts that it is not about."""
    with asking(evaluation):
        return [prompt for prompt in asked if evaluation.wants(prompt)]


def judge(
    evaluation: ImageEvaluation, images: Sequence[Tensor], asked: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """Judge K images: K rows without a file's name, as JSON gives them back.

    Raises:
        PluginError: there is not one for each image, or JSON cannot hold it.
    """
    with asking(evaluation):
        rows = evaluation.judge(images, asked)
    return _rows(evaluation, "judge", rows, len(images))


def judge_beside(
    evaluation: ImageEvaluation, rows: Sequence[Row], asked: Sequence[Prompt], companions: Sequence[Tensor]
) -> list[dict[str, Any]]:
    """Finish K rows, each with another image.

    Raises:
        PluginError: as of :func:`judge`.
    """
    with asking(evaluation):
        finished = evaluation.judge_beside(rows, asked, companions)
    return _rows(evaluation, "judge_beside", finished, len(rows))


def companions(evaluation: ImageEvaluation, asked: Sequence[Prompt]) -> list[int] | None:
    """Ask which other image each of K is judged beside.

    Raises:
        PluginError: it is no number in [0, K) for each.
    """
    with asking(evaluation):
        found = evaluation.companions(asked)
    if found is None:
        return None
    if len(found) != len(asked) or not all(0 <= i < len(asked) for i in found):
        raise refused(evaluation, f"companions returned no number in [0, {len(asked)}) for each image")
    return list(found)


def _rows(evaluation: ImageEvaluation, method: str, rows: Any, number: int) -> list[dict[str, Any]]:
    """Take as many rows as images, without their files' names, as JSON gives them back."""
    if not isinstance(rows, Sequence) or len(rows) != number:
        what = f"{len(rows)} rows" if isinstance(rows, Sequence) else type(rows).__name__
        raise refused(evaluation, f"{method} returned {what} for {number} images")
    kept: list[dict[str, Any]] = []
    for row in rows:
        if not isinstance(row, Mapping):
            raise refused(evaluation, f"{method} returned {type(row).__name__} as a row, not a dict")
        values = {key: value for key, value in row.items() if key != FILENAME}
        try:
            kept.append(json.loads(json.dumps(values, allow_nan=False)))
        except (TypeError, ValueError) as error:
            raise refused(evaluation, f"{method} returned a row that JSON cannot hold ({error})") from error
    return kept


def values(kind: type[ImageEvaluation], row: Row) -> dict[str, float]:
    """Ask what an image adds to the means.

    Raises:
        PluginError: it is no finite number, or its name cannot be a metric's.
    """
    with asking(kind, KeyError, TypeError, ValueError):  # of a damaged row
        found = kind.values(row)
    return {name: _number(kind, "values", name, value) for name, value in found.items()}


def combine(kind: type[ImageEvaluation], means: Mapping[str, Number]) -> dict[str, Number]:
    """Ask for the numbers to report.

    Raises:
        PluginError: one is no ``Number``, or there is none.
    """
    with asking(kind, KeyError):
        found = dict(kind.combine(means))
    for name, number in found.items():
        if not isinstance(number, Number):
            raise refused(kind, f"combine returned {type(number).__name__} as {name!r}, not a Number")
        _number(kind, "combine", name, number.mean)
    if not found:
        raise refused(kind, "combine returned no number: values() gave none")
    return found


def others(evaluation: ImageEvaluation, rows: Sequence[Row]) -> dict[str, float]:
    """Ask for numbers that are no means.

    Raises:
        PluginError: one is no number. NaN is: of it nothing is known.
    """
    with asking(evaluation):
        found = evaluation.others(rows)
    for name, value in found.items():
        is_unknown = isinstance(value, float) and math.isnan(value)
        _number(evaluation, "others", name, 0.0 if is_unknown else value)
    return {name: float(value) for name, value in found.items()}


def features(evaluation: DistributionEvaluation, images: Sequence[Tensor]) -> NDArray[np.float64]:
    """Compute the features of K images: Float [K, D].

    Raises:
        PluginError: they have another shape, or are not finite.
    """
    with asking(evaluation):
        found = np.asarray(evaluation.features(images), dtype=np.float64)
    if found.shape != (len(images), evaluation.width):
        raise refused(evaluation, f"features has shape {found.shape}, not {(len(images), evaluation.width)}")
    if not np.isfinite(found).all():
        raise refused(evaluation, f"features are not finite for one of {len(images)} images")
    return found


def measure(
    evaluation: DistributionEvaluation, mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> dict[str, Number]:
    """Ask for the numbers of a distribution.

    Raises:
        PluginError: one is not finite, or there is none.
    """
    with asking(evaluation):
        found = evaluation.measure(mean, covariance)
    if not found:
        raise refused(evaluation, "measure returned no number")
    return {
        name: Number(_number(evaluation, "measure", name, value), math.nan) for name, value in found.items()
    }


def label(evaluation: Evaluation, asked: Sequence[Prompt], images: int) -> str:
    """Ask what the numbers may be called.

    Raises:
        PluginError: it is no text.
    """
    with asking(evaluation):
        found = evaluation.label(asked, images)
    if not isinstance(found, str) or not found.strip():
        raise refused(evaluation, f"label returned {found!r}, which is no text")
    return found


def settings(evaluation: Evaluation) -> dict[str, Any]:
    """Ask which of its settings make two results incomparable.

    Raises:
        PluginError: JSON cannot hold them.
    """
    with asking(evaluation):
        found = _plain(evaluation, "settings", evaluation.settings())
    if both := sorted(found.keys() & PAINTING):
        raise refused(
            evaluation, f"settings returned {both[0]!r}, which says how images were painted: rename it"
        )
    return found


def about(evaluation: Evaluation) -> dict[str, Any]:
    """Ask what else a reader should know.

    Raises:
        PluginError: JSON cannot hold it.
    """
    with asking(evaluation):
        return _plain(evaluation, "about", evaluation.about())


def details(evaluation: ImageEvaluation, rows: Sequence[Row]) -> dict[str, Any]:
    """Ask for more than the numbers; NaN in it stands for what there is not.

    Raises:
        PluginError: JSON cannot hold it.
    """
    with asking(evaluation):
        return _plain(evaluation, "details", evaluation.details(rows), nan=True)


def notes(evaluation: Evaluation, rows: Sequence[Row], images: int) -> list[str]:
    """Ask for lines for a reader of the numbers.

    Raises:
        PluginError: one is no text.
    """
    with asking(evaluation):
        found = list(evaluation.notes(rows, images))
    if not all(isinstance(line, str) for line in found):
        raise refused(evaluation, "notes returned something else than texts")
    return found


def table(evaluation: ImageEvaluation, rows: Sequence[Row]) -> list[list[str]]:
    """Ask for a table for a reader, its headings first.

    Raises:
        PluginError: it is no table of texts, every line as long as the headings.
    """
    with asking(evaluation):
        found = [list(line) for line in evaluation.table(rows)]
    is_text = all(isinstance(cell, str) for line in found for cell in line)
    if not is_text or len({len(line) for line in found}) > 1:
        raise refused(evaluation, "table returned no lines of texts, each as long as the headings")
    return found


def _plain(
    evaluation: Evaluation, method: str, found: Mapping[str, Any], nan: bool = False
) -> dict[str, Any]:
    try:
        json.dumps(found, allow_nan=nan)
    except (TypeError, ValueError) as error:
        raise refused(evaluation, f"{method} returned what JSON cannot hold ({error})") from error
    return dict(found)


def _number(component: Any, method: str, name: Any, value: Any) -> float:
    """Take a finite number, by a name that can be a metric's."""
    if not (isinstance(name, str) and TERM.fullmatch(name)):
        raise refused(component, f"{method} calls a number {name!r}; use letters, digits, '_' and '-'")
    if name in TAKEN:
        raise refused(
            component, f"{method} calls a number {name!r}, which means something else in a run's metrics"
        )
    is_number = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        raise refused(component, f"{method} returned {value!r} as {name!r}, which is no finite number")
    return float(value)


def require_images(evaluation: Evaluation, images: int, where: str) -> None:
    """Refuse, before anything is painted or judged, so few images that features of them have no covariance.

    Raises:
        RecipeError: there are fewer than two; ``where`` begins the message.
    """
    if isinstance(evaluation, DistributionEvaluation) and images < 2:
        raise RecipeError(f"{where}: {images} image, and a covariance needs two")
    if images < 1:
        raise RecipeError(f"{where}: no image, and there is nothing to judge")
