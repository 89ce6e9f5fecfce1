"""GenEval: paint every prompt several times, detect, judge by the official rules; compare two such runs.

The detector is a part that is swapped, so results are GenEval's only with the official detector and prompts:
the settings in every report name both, and ``label`` says what the detector makes of the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl.asking import asking
from maskrl.errors import TrainingError
from maskrl.evals import results
from maskrl.evals.generate import paint_pairs
from maskrl.evals.images import (
    ImageFolder,
    image_name,
    painted_settings,
)
from maskrl.evals.journal import judge_images
from maskrl.evals.results import Number, Result
from maskrl.evals.together import Progress, dealt, silent
from maskrl.geneval import answers
from maskrl.geneval.metadata import TASKS, check_prompts, metadata_line, read_metadata
from maskrl.geneval.official_prompts import label
from maskrl.geneval.scoring import judge, select
from maskrl.geneval.summary import (
    Record,
    Summary,
    TaskScore,
    by_prompt,
    check_tasks,
    details,
    standard_error,
    summarise,
)
from maskrl.grpo.config import Sampling
from maskrl.grpo.processes import Process, SingleProcess
from maskrl.identity import identity
from maskrl.interfaces import Detector, MaskedGenerator
from maskrl.pixels import rounded
from maskrl.runtime import record
from maskrl.types import Prompt, Stream

PROTOCOL = "GenEval scoring rules of djghosh13/geneval af4902f"
ALONE = SingleProcess()
_ROUNDING = 1e-9  # gains that cancel may leave this much


@dataclass(frozen=True)
class GenEvalReport:
    """An evaluation: its numbers, a record per image, what it may be called, and what would repeat it.

    ``settings`` are those that must be equal in two reports that are compared; ``generator`` is what painted.
    """

    summary: Summary
    records: tuple[Record, ...]
    label: str
    settings: Mapping[str, Any]
    generator: Mapping[str, Any] | None

    @property
    def overall(self) -> float:
        """The headline, in [0, 1]: the unweighted mean over the six tasks."""
        return self.summary.overall

    @property
    def overall_se(self) -> float:
        """The standard error of ``overall``."""
        return self.summary.overall_se

    @property
    def tasks(self) -> Mapping[str, TaskScore]:
        """Mean, standard error, prompts and images of each task."""
        return self.summary.tasks

    @property
    def images(self) -> int:
        """How many images were judged."""
        return self.summary.images


def check(prompts: Sequence[Prompt], detector: Detector) -> None:
    """See that an evaluation can be done, before anything is painted for it.

    Raises:
        RecipeError: a prompt cannot be judged.
        TrainingError: a task has no prompt, or the detector fails its self-test.
    """
    check_prompts(prompts, detector)
    check_tasks({prompt.metadata["tag"] for prompt in prompts})
    with asking(detector):
        detector.self_test()


def evaluate(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    detector: Detector,
    *,
    sampling: Sampling,
    num_steps: int,
    images_per_prompt: int,
    stream: Stream,
    batch: int,
    process: Process = ALONE,
    progress: Progress = silent,
) -> GenEvalReport:
    """Run GenEval on a generator.

    Image i of prompt p is painted from ``stream.child("eval", p, i)``: the same stream gives the same noise
    before and after training, for every ``batch`` and any number of processes, among which the images are dealt
    out. Images are judged after rounding to 8 bits, as a PNG holds them.

    Args:
        generator: what is evaluated.
        prompts: with GenEval metadata, all six tasks among them.
        detector: finds objects and names colours.
        sampling: schedule, temperatures, guidance (of the evaluation).
        num_steps: T, unmasking steps.
        images_per_prompt: officially 4.
        stream: the randomness of this evaluation.
        batch: images per rollout; memory and speed only.
        process: this one; every process returns the whole report.
        progress: called with the images done and their total after every batch, as often on every process.

    Raises:
        RecipeError: a prompt cannot be judged.
        TrainingError: a task has no prompt, or the detector fails its self-test.
    """
    check(prompts, detector)
    every = [(p, i) for p in range(len(prompts)) for i in range(images_per_prompt)]
    records: list[Record] = []
    for pairs in dealt(every, len(every), batch, process, progress):
        images = paint_pairs(generator, prompts, pairs, stream, num_steps, sampling)
        for (p, i), image in zip(pairs, rounded(images), strict=True):
            records.append(judge_image(image, prompts[p], detector, image_name(p, i)))
    settings = painted_settings(generator, prompts, images_per_prompt, num_steps, sampling, stream)
    painter = settings.pop("generator")
    records = sorted(process.gather_objects(records), key=lambda record: record.filename)
    judged = _judged_by(detector) | settings
    name = label(detector.label, prompts, images_per_prompt)
    return GenEvalReport(summarise(records), tuple(records), name, judged, painter)


def evaluate_folder(
    images: ImageFolder,
    detector: Detector,
    out: Path,
    *,
    batch: int,
    process: Process,
    progress: Progress,
) -> GenEvalReport:
    """Run GenEval on images that are there, by whomever they were painted.

    Args:
        images: with GenEval metadata, all six tasks among them.
        detector: finds objects and names colours.
        out: where verdicts wait until all are there; a killed evaluation is gone on with.
        batch: images per row of verdicts; nothing but how much a kill can lose.
        process: this one; every process returns the whole report.
        progress: called with the images done and their total.

    Raises:
        RecipeError: a prompt cannot be judged.
        TrainingError: a task has no prompt, an image is damaged, or the detector fails its self-test.
    """
    check(images.prompts, detector)
    settings = _judged_by(detector) | images.comparable()

    def judge_all(
        pixels: Sequence[Tensor], prompts: Sequence[Prompt], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        triples = zip(pixels, prompts, names, strict=True)
        return [asdict(judge_image(image, prompt, detector, name)) for image, prompt, name in triples]

    rows = judge_images(images, judge_all, settings, out, batch=batch, process=process, progress=progress)
    records = tuple(Record(**row) for row in rows)
    name = label(detector.label, images.prompts, images.per_prompt)
    return GenEvalReport(summarise(records), records, name, settings, images.generator)


def _judged_by(detector: Detector) -> dict[str, Any]:
    return {"protocol": PROTOCOL, "detector": identity(detector)}


def judge_image(image: Tensor, prompt: Prompt, detector: Detector, filename: str) -> Record:
    """Detect and judge one image, Float [3, H, W] in [0, 1]."""
    metadata = read_metadata(prompt)
    tag = metadata["tag"]
    objects = select(answers.detect(detector, image), tag)
    correct, reason = judge(image, objects, metadata, partial(answers.color, detector))
    return Record(filename, tag, prompt.text, correct, reason, metadata_line(prompt), details(objects))


def write_report(report: GenEvalReport, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write ``results.jsonl``, the official rows, and ``summary.json``, the numbers and how to repeat them.

    Args:
        report: what to write.
        folder: made if it is missing.
        provenance: what the caller knows of the weights: recipe digest, checkpoint, update.

    Raises:
        TrainingError: the folder cannot be written.
    """
    digest = results.write_rows(folder, [asdict(record) for record in report.records])
    results.write_result(replace(as_result(report, provenance), rows_sha256=digest), folder)


def as_result(report: GenEvalReport, provenance: Mapping[str, Any]) -> Result:
    """Return a report as every evaluation writes it; ``overall`` is the headline, tasks follow."""
    tasks = {task: Number(score.mean, score.se) for task, score in report.tasks.items()}
    of_images = {
        "correct_images": Number(report.summary.correct_images, math.nan),
        "correct_prompts": Number(report.summary.correct_prompts, math.nan),
    }
    return Result(
        evaluation="geneval",
        label=report.label,
        numbers={"overall": Number(report.overall, report.overall_se), **tasks, **of_images},
        images=report.images,
        settings=report.settings,
        provenance={"generator": report.generator, **provenance},
        versions=record.versions(),
    )


def read_report(folder: Path) -> GenEvalReport:
    """Read what :func:`write_report` wrote; the numbers are computed anew from the rows.

    Raises:
        RecipeError: there are no results.
        TrainingError: a file is missing or damaged, or the results are those of another evaluation.
    """
    saved = results.read_result(folder)
    if saved.evaluation != "geneval":
        raise TrainingError(f"the results in {str(folder)!r} are of {saved.evaluation!r}, not of 'geneval'")
    try:
        records = tuple(Record(**row) for row in results.read_rows(folder, saved))
    except TypeError as error:
        raise TrainingError(f"the results in {str(folder)!r} are damaged: {error}") from error
    if len(records) != saved.images:
        raise TrainingError(
            f"the results in {str(folder)!r} are damaged: {len(records)} of {saved.images} rows"
        )
    report = GenEvalReport(
        summarise(records), records, saved.label, saved.settings, saved.provenance.get("generator")
    )
    if abs(report.overall - saved.numbers["overall"].mean) > 1e-6:
        raise TrainingError(
            f"the results in {str(folder)!r} are damaged: their rows give {report.overall:.6g}, their summary says"
            f" {saved.numbers['overall'].mean:.6g}; delete that folder, and it is measured again"
        )
    return report


@dataclass(frozen=True)
class Comparison:
    """After minus before: standard errors are over prompts, each paired with itself, NaN for a single one.

    ``fell`` names every task whose mean is lower after.
    """

    overall: Number
    tasks: Mapping[str, Number]
    fell: tuple[str, ...]


def compare(before: GenEvalReport, after: GenEvalReport) -> Comparison:
    """Compare two generators on the same prompts, noise, steps and guidance, prompt by prompt.

    Raises:
        RecipeError: the two evaluations differ in more than the generator.
    """
    results.check_comparable(as_result(before, {}), as_result(after, {}))
    tasks = {task: _difference(before, after, task) for task in TASKS}
    overall = Number(
        sum(task.mean for task in tasks.values()) / len(TASKS),
        math.sqrt(sum(task.se**2 for task in tasks.values())) / len(TASKS),
    )
    fell = tuple(name for name, task in tasks.items() if task.mean < -_ROUNDING)
    return Comparison(overall, tasks, fell)


def _difference(before: GenEvalReport, after: GenEvalReport, task: str) -> Number:
    old, new = (
        by_prompt([record for record in report.records if record.tag == task]) for report in (before, after)
    )
    gains = [sum(new[prompt]) / len(new[prompt]) - sum(old[prompt]) / len(old[prompt]) for prompt in old]
    return Number(sum(gains) / len(gains), standard_error(gains))
