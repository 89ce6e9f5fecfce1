"""An evaluation's report: its numbers with what they mean, and where they are from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maskrl.evals.results import Report, Result
from maskrl.evaluations import answers
from maskrl.interfaces import Evaluation, Number, Row
from maskrl.registry import name_of
from maskrl.runtime import record
from maskrl.types import Prompt


def report_of(
    evaluation: Evaluation,
    prompts: Sequence[Prompt],
    images: int,
    found: Mapping[str, Number],
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Report:
    """Put together what an evaluation of so many images has found.

    Args:
        evaluation: that was made.
        prompts: of the images.
        images: how many.
        found: its numbers.
        rows: of the images, where it keeps any.
        settings: what two results must agree in to be compared.
        provenance: where the images are from.
    """
    result = Result(
        evaluation=name_of("evaluations", type(evaluation)),
        label=answers.label(evaluation, prompts, images),
        numbers=found,
        images=images,
        settings=settings,
        provenance={
            **provenance,
            **answers.about(evaluation),
            "notes": answers.notes(evaluation, rows, images),
        },
        versions=record.versions([type(evaluation)]),
    )
    return Report(result, tuple(rows))
