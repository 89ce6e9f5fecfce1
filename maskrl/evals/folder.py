"""Any evaluation of a folder of images, by whomever they were painted; a killed one is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl import registry
from maskrl.evals import results
from maskrl.evals.flat import formats
from maskrl.evals.images import ImageFolder, digest_of
from maskrl.evals.journal import Judge, close, judge_images
from maskrl.evals.ranks import ALONE, ShowProgress, run_on_main, silent
from maskrl.evals.report import report_of
from maskrl.evals.results import Report
from maskrl.evals.shares import gather
from maskrl.evaluations import answers
from maskrl.evaluations.numbers import numbers
from maskrl.grpo.processes import Process
from maskrl.interfaces import DistributionEvaluation, Evaluation, ImageEvaluation, Number, Row
from maskrl.registry import name_of
from maskrl.types import Prompt


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
    report = report_of(evaluation, images.prompts, number, found, rows, settings, provenance)
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
