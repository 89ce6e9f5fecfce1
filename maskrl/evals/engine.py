"""Any evaluation of any images: painted now and judged at once, or in a folder, where a killed one is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl import registry
from maskrl.errors import RecipeError
from maskrl.evals import results
from maskrl.evals.flat import formats
from maskrl.evals.generate import sample_pairs
from maskrl.evals.images import ImageFolder, digest_of
from maskrl.evals.journal import Judge, close, judge_images
from maskrl.evals.ranks import ShowProgress, dealt, run_on_main, silent
from maskrl.evals.results import Report, Result
from maskrl.evals.sampled import image_name, sampling_settings
from maskrl.evals.shares import gather
from maskrl.evaluations import answers
from maskrl.evaluations.numbers import numbers
from maskrl.evaluations.running_covariance import RunningCovariance
from maskrl.grpo.config import Sampling
from maskrl.grpo.processes import Process, SingleProcess
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
from maskrl.runtime import record
from maskrl.types import Prompt, Stream

ALONE = SingleProcess()


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
    check(evaluation, prompts, images_per_prompt)
    every = [(p, i) for p in range(len(prompts)) for i in range(images_per_prompt)]
    tally = _Rows(evaluation) if isinstance(evaluation, ImageEvaluation) else _Features(evaluation)
    for pairs in dealt(every, len(every), batch, process, progress):
        images = sample_pairs(generator, prompts, pairs, stream, num_steps, sampling)
        tally.add(pairs, rounded(images), [prompts[p] for p, _ in pairs])
    rows, found = tally.finish(process)
    settings = sampling_settings(generator, prompts, images_per_prompt, num_steps, sampling, stream)
    provenance = {"generator": settings.pop("generator")}
    if isinstance(evaluation, DistributionEvaluation):
        settings |= {"images": len(every), "formats": ["png"]}  # what 8 bits are as good as
    settings = {**answers.settings(evaluation), **settings}
    return _report(evaluation, prompts, len(every), found, rows, settings, provenance)


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


def evaluate_folder(
    evaluation: Evaluation,
    images: ImageFolder,
    out: Path,
    provenance: Mapping[str, Any],
    *,
    batch: int,
    process: Process = ALONE,
    progress: ShowProgress = silent,
) -> Report:
    """Evaluate images that are there, by whomever they were painted, and write the results.

    Args:
        evaluation: what is measured.
        images: of prompts that the evaluation is about.
        out: a folder for the results; a killed evaluation is resumed.
        provenance: what the caller knows of the images' origin.
        batch: images judged at a time; memory and speed only.
        process: this one; the main process writes, every process returns the whole report.
        progress: called with the images done and their total.

    Raises:
        RecipeError: a prompt cannot be judged, or ``out`` holds results of other settings or images.
        TrainingError: an image is damaged, the evaluation does not work here and now, or ``out`` cannot be written.
        PluginError: the evaluation answers wrongly.
    """
    answers.check(evaluation, images.prompts)
    number = len(images.pairs())
    if isinstance(evaluation, ImageEvaluation):
        settings = {**answers.settings(evaluation), **images.comparable()}
        beside = _companions(evaluation, images)
        judge, hashes = _judge(evaluation, images, beside), images.hashes()
        told = {name: digest_of({name: hashes[name], beside[name]: hashes[beside[name]]}) for name in beside}
        rows = judge_images(
            images,
            judge,
            settings,
            out,
            evaluation=name_of("evaluations", type(evaluation)),
            told=told or hashes,
            turned=evaluation.turns_images,
            batch=batch,
            process=process,
            progress=progress,
        )
        found: Mapping[str, Number] = numbers(evaluation, rows)
    else:
        answers.require_images(evaluation, number, f"{str(images.folder)!r} holds")
        painted = {"images": number, **images.comparable(), "formats": formats(images)}
        settings = {**answers.settings(evaluation), **painted}
        rows, found, sides = _gather(evaluation, images, out, settings, process, progress)
        provenance = {**provenance, "image_sides": sides}
    provenance = {"generator": images.generator, **provenance, "judged": images.identity()}
    report = _report(evaluation, images.prompts, number, found, rows, settings, provenance)
    run_on_main(process, lambda: _write(evaluation, report, out))
    return report


def _write(evaluation: Evaluation, report: Report, out: Path) -> None:
    results.write_report(report, out)
    if isinstance(evaluation, ImageEvaluation) and (details := answers.details(evaluation, report.rows)):
        results.write_details(details, out, registry.short_name(report.result.evaluation))
    close(out)


def _companions(evaluation: ImageEvaluation, images: ImageFolder) -> dict[str, str]:
    """Return the image that each is judged beside, by its name; none where they are judged alone."""
    pairs = images.pairs()
    beside = answers.companions(evaluation, [prompt for prompt, _ in pairs])
    return {} if beside is None else {name: pairs[i][1] for (_, name), i in zip(pairs, beside, strict=True)}


def _judge(evaluation: ImageEvaluation, images: ImageFolder, other: Mapping[str, str]) -> Judge:
    """Judge images of a folder, beside others where the evaluation wants it."""

    def judge(pixels: Sequence[Tensor], prompts: Sequence[Prompt], names: Sequence[str]) -> Sequence[Row]:
        rows = answers.judge(evaluation, pixels, prompts)
        if not other:
            return rows
        companions = [images.read(other[name], evaluation.turns_images) for name in names]
        finished = answers.judge_beside(evaluation, rows, prompts, companions)
        return [{**row, "companion": other[name]} for row, name in zip(finished, names, strict=True)]

    return judge


def _gather(
    evaluation: Evaluation,
    images: ImageFolder,
    out: Path,
    settings: Mapping[str, Any],
    process: Process,
    progress: ShowProgress,
) -> tuple[list[dict[str, Any]], dict[str, Number], list[int]]:
    assert isinstance(evaluation, DistributionEvaluation), type(evaluation)
    name = name_of("evaluations", type(evaluation))
    run_on_main(process, lambda: results.refuse_others(out, name, settings, images.identity()))

    def features(pixels: Sequence[Tensor]) -> Any:
        return answers.features(evaluation, pixels)

    share = gather(
        images,
        features,
        evaluation.width,
        out,
        settings,
        turned=evaluation.turns_images,
        process=process,
        progress=progress,
    )
    known = share.covariance
    return [], answers.measure(evaluation, known.mean, known.covariance()), list(share.sides)


def _report(
    evaluation: Evaluation,
    prompts: Sequence[Prompt],
    images: int,
    found: Mapping[str, Number],
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Report:
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
