"""What an evaluation promises."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskrl.asking import asking
from maskrl.eval_section import EvalConfig
from maskrl.evaluations import answers, numbers
from maskrl.interfaces import DistributionEvaluation, Evaluation, ImageEvaluation, Number, Row
from maskrl.testing.classes import check_class
from maskrl.testing.promises import PROMPTS, TOLERANCE, pictures, quiet, require, require_listed
from maskrl.types import Prompt

DEPENDS = "the row of an image depends on the rest of its batch"


def check_evaluation(
    component: Evaluation,
    prompts: Sequence[Prompt] | None = None,
    image_size: tuple[int, int] = (48, 64),
) -> None:
    """Check that rows depend on their own image and prompt alone, and numbers on the rows; that names can be metrics.

    Also that combined numbers are linear in the means, as differences of two results need it; that features of an image
    do not depend on the others; that networks are listed, and settings can be written down. Without prompts it is shown
    the first of its own.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.Evaluation`.
        RecipeError: these prompts are none that it can judge.
    """
    check_class(type(component))
    clash = sorted(EvalConfig.model_fields.keys() & type(component).Config.model_fields)
    require(component, not clash, f"its Config has {clash}, which every section [eval.NAME] has already")
    require_listed(component, "'modules'", component.modules)
    for key in component.takes:
        require(
            component, key in type(component).Config.model_fields, f"'takes' names {key!r}, no setting of it"
        )
    answers.settings(component)
    if prompts is None:
        prompts = answers.wanted(type(component), answers.prompts(type(component)) or PROMPTS)[:3]
    answers.check(component, prompts)
    images = list(pictures(len(prompts), image_size))
    if isinstance(component, ImageEvaluation):
        _check_rows(component, images, prompts)
    else:
        is_known = isinstance(component, DistributionEvaluation)
        require(component, is_known, "is neither an ImageEvaluation nor a DistributionEvaluation")
        assert isinstance(component, DistributionEvaluation)
        _check_features(component, images)
    answers.label(component, prompts, len(prompts))


def _check_rows(component: ImageEvaluation, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> None:
    given, asked = [image.clone() for image in images], copy.deepcopy(list(prompts))
    with quiet(component, "judge"):
        rows = answers.judge(component, images, prompts)
    require(
        component, all(a.equal(b) for a, b in zip(images, given, strict=True)), "judge changed the images"
    )
    require(component, asked == list(prompts), "judge changed the prompts")
    _require_same(component, rows, answers.judge(component, images, prompts), "judge has noise")
    backwards = answers.judge(component, images[::-1], prompts[::-1])[::-1]
    _require_same(component, rows, backwards, DEPENDS)
    pairs = zip(images, prompts, strict=True)
    alone = [row for image, prompt in pairs for row in answers.judge(component, [image], [prompt])]
    _require_same(component, rows, alone, DEPENDS)
    if answers.companions(component, prompts) is None:
        named = [{answers.FILENAME: f"{i}/0", **row} for i, row in enumerate(rows)]
        _check_numbers(component, named)


def _check_numbers(component: ImageEvaluation, rows: Sequence[Row]) -> None:
    kind = type(component)
    means = numbers.means(numbers.gather(kind, rows))
    found = numbers.numbers(component, rows)
    require(component, all(math.isfinite(number.mean) for number in found.values()), "a number is not finite")
    combined, doubled = (
        answers.combine(kind, {name: Number(factor * one.mean, one.se) for name, one in means.items()})
        for factor in (1, 2)
    )
    is_linear = all(
        math.isclose(doubled[name].mean, 2 * one.mean, abs_tol=1e-6) for name, one in combined.items()
    )
    require(
        component, is_linear, "combine is not linear in the means: differences of two results would be wrong"
    )
    for row in rows:
        with asking(component):
            right = component.is_right(row)
        require(
            component, right in (True, False, None), f"is_right returned {right!r}, not True, False or None"
        )


def _check_features(component: DistributionEvaluation, images: Sequence[Tensor]) -> None:
    given = [image.clone() for image in images]
    with quiet(component, "features"):
        features = answers.features(component, images)
    require(
        component, all(a.equal(b) for a, b in zip(images, given, strict=True)), "features changed the images"
    )
    alone = np.concatenate([answers.features(component, [image]) for image in images])
    difference = float(np.abs(features - alone).max())
    scale = max(1.0, float(np.abs(features).max()))
    said = f"the features of an image depend on the rest of its batch (by {difference:.2g})"
    require(component, difference <= TOLERANCE * scale, said)
    answers.measure(
        component, features.mean(axis=0), np.cov(features, rowvar=False).reshape(2 * features.shape[1:])
    )


def _require_same(component: Evaluation, left: Sequence[Row], right: Sequence[Row], complaint: str) -> None:
    same = len(left) == len(right) and all(_is_close(a, b) for a, b in zip(left, right, strict=True))
    require(component, same, complaint)


def _is_close(left: Any, right: Any) -> bool:
    """Compare two values of rows; numbers may differ by rounding."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_is_close(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_is_close, left, right))
    return bool(left == right)
