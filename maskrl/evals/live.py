"""Any evaluation of a generator: images are painted, judged at once, and never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.evals.generate import sample_pairs
from maskrl.evals.ranks import ALONE, ShowProgress, dealt, silent
from maskrl.evals.report import report_of
from maskrl.evals.results import Report
from maskrl.evals.sampled import image_name, sampling_settings
from maskrl.evaluations import answers
from maskrl.evaluations.numbers import numbers
from maskrl.evaluations.running_covariance import RunningCovariance
from maskrl.grpo.config import Sampling
from maskrl.grpo.processes import Process
from maskrl.interfaces import (
    DistributionEvaluation,
    Evaluation,
    ImageEvaluation,
    MaskedGenerator,
    Number,
    Row,
)
from maskrl.pixels import rounded
from maskrl.registry import name_of
from maskrl.types import Prompt, Stream


def evaluate(
    evaluation: Evaluation,
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    num_steps: int,
    images_per_prompt: int,
    stream: Stream,
    batch: int,
    process: Process = ALONE,
    progress: ShowProgress = silent,
) -> Report:
    """Evaluate a generator; nothing is written.

    Image i of prompt p is painted from ``stream.child("eval", p, i)``: the same stream gives the same noise before and
    after training, for every ``batch`` and any number of processes, among which the images are dealt out. Images are
    judged after rounding to 8 bits, as a PNG holds them.

    Args:
        evaluation: what is measured.
        generator: what paints.
        prompts: those that the evaluation is about.
        sampling: schedule, temperatures, guidance (of the evaluation).
        num_steps: T, unmasking steps.
        images_per_prompt: how many of each.
        stream: the randomness of this evaluation.
        batch: images per rollout; memory and speed only.
        process: this one; every process returns the whole report.
        progress: called with the images done and their total after every batch, as often on every process.

    Raises:
        RecipeError: a prompt cannot be judged, or the evaluation is of images in a folder only.
        TrainingError: the evaluation does not work here and now.
        PluginError: it answers wrongly.
    """
    (report,) = evaluate_together(
        [Asked(evaluation, images_per_prompt)],
        generator,
        prompts,
        sampling=sampling,
        num_steps=num_steps,
        stream=stream,
        batch=batch,
        process=process,
        progress=progress,
    )
    return report


@dataclass(frozen=True)
class Asked:
    """An evaluation, and how many images of each prompt it is about: the first ones."""

    evaluation: Evaluation
    images_per_prompt: int


def evaluate_together(
    asked: Sequence[Asked],
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    num_steps: int,
    stream: Stream,
    batch: int,
    process: Process = ALONE,
    progress: ShowProgress = silent,
) -> list[Report]:
    """Evaluate a generator in several ways by the same images, each of which is painted once.

    Args:
        asked: what is measured, by how many of the images; the report of each is in its place.
        generator: what paints.
        prompts: those that all of the evaluations are about.
        sampling: schedule, temperatures, guidance (of the evaluations).
        num_steps: T, unmasking steps.
        stream: the randomness, as for ``evaluate``.
        batch: images per rollout; memory and speed only.
        process: this one; every process returns the whole reports.
        progress: called with the images done and their total after every batch.

    Raises:
        RecipeError, TrainingError, PluginError: as ``evaluate``.
    """
    for one in asked:
        check(one.evaluation, prompts, one.images_per_prompt)
    most = max(one.images_per_prompt for one in asked)
    every = [(p, i) for p in range(len(prompts)) for i in range(most)]
    tallies = [
        _Rows(one.evaluation) if isinstance(one.evaluation, ImageEvaluation) else _Features(one.evaluation)
        for one in asked
    ]
    for pairs in dealt(every, len(every), batch, process, progress):
        # a process without images paints one along: a network that is divided needs all of them
        painted = sample_pairs(generator, prompts, pairs or every[:1], stream, num_steps, sampling)
        images = rounded(painted[: len(pairs)])
        for one, tally in zip(asked, tallies, strict=True):
            seen = [k for k, (_, i) in enumerate(pairs) if i < one.images_per_prompt]
            tally.add([pairs[k] for k in seen], images[seen], [prompts[pairs[k][0]] for k in seen])
    reports = []
    for one, tally in zip(asked, tallies, strict=True):
        rows, found = tally.finish(process)
        settings = sampling_settings(generator, prompts, one.images_per_prompt, num_steps, sampling, stream)
        provenance = {"generator": settings.pop("generator")}
        number = len(prompts) * one.images_per_prompt
        if isinstance(one.evaluation, DistributionEvaluation):
            settings |= {"images": number, "formats": ["png"]}  # what 8 bits are as good as
        settings = {**answers.settings(one.evaluation), **settings}
        reports.append(report_of(one.evaluation, prompts, number, found, rows, settings, provenance))
    return reports


def check(evaluation: Evaluation, prompts: Sequence[Prompt], images_per_prompt: int) -> None:
    """See that painted images can be judged, before anything is painted for it.

    Raises:
        RecipeError: a prompt cannot be judged, or the evaluation is of images in a folder only.
        TrainingError: the evaluation does not work here and now.
    """
    answers.check(evaluation, prompts)
    answers.require_images(evaluation, len(prompts) * images_per_prompt, "there would be")
    if isinstance(evaluation, ImageEvaluation) and answers.companions(evaluation, prompts) is not None:
        name = name_of("evaluations", type(evaluation))
        raise RecipeError(
            f"{name!r} judges images beside each other, and so in a folder only: leave it out of the training's"
            f" recipe, and run 'maskrl eval {name}'"
        )


class _Rows:
    """Rows of images that are judged as they are painted."""

    def __init__(self, evaluation: ImageEvaluation) -> None:
        self._evaluation = evaluation
        self._rows: list[tuple[tuple[int, int], dict[str, Any]]] = []

    def add(self, pairs: Sequence[tuple[int, int]], images: Tensor, prompts: Sequence[Prompt]) -> None:
        """Judge images, Float [K, 3, H, W]; ``pairs``: the numbers of their prompts and their own."""
        if pairs:
            self._rows += zip(pairs, answers.judge(self._evaluation, list(images), prompts), strict=True)

    def finish(self, process: Process) -> tuple[list[Row], dict[str, Number]]:
        """Return the rows of all processes in the order of the images, and what they come to."""
        every = sorted(process.gather_objects(self._rows), key=lambda one: one[0])
        rows: list[Row] = [{answers.FILENAME: image_name(*pair), **row} for pair, row in every]
        return rows, numbers(self._evaluation, rows)


class _Features:
    """Features of images that are painted, of which nothing but mean and covariance is kept."""

    def __init__(self, evaluation: Evaluation) -> None:
        assert isinstance(evaluation, DistributionEvaluation), type(evaluation)
        self._evaluation = evaluation
        self._known = RunningCovariance.none(evaluation.width)

    def add(self, pairs: Sequence[tuple[int, int]], images: Tensor, prompts: Sequence[Prompt]) -> None:
        """Take in images, Float [K, 3, H, W]."""
        if pairs:
            self._known.add(answers.features(self._evaluation, list(images)))

    def finish(self, process: Process) -> tuple[list[Row], dict[str, Number]]:
        """Return no rows, and what the features of all processes come to."""
        known = RunningCovariance.none(self._evaluation.width)
        for share in process.gather_objects([self._known]):
            known.merge(share)
        return [], answers.measure(self._evaluation, known.mean, known.covariance())
