"""GenEval: paint every prompt several times, detect, judge by the official rules; compare two such runs.

The detector is a part that is swapped, so results are GenEval's only with the official detector and prompts:
the settings in every report name both, and ``label`` says what the detector makes of the numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.generate import generate
from maskrl.geneval.metadata import check_prompts, metadata_line
from maskrl.geneval.scoring import TASKS, judge, select
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
from maskrl.grpo.parts import Process, SingleProcess
from maskrl.interfaces import Detector, MaskedGenerator
from maskrl.types import Prompt, Stream

PROTOCOL = "GenEval scoring rules of djghosh13/geneval af4902f"
ALONE = SingleProcess()
_ROUNDING = 1e-9  # gains that cancel may leave this much

ImageSink = Callable[[int, int, Tensor], None]
NO_IMAGES = (range(0), torch.empty(0))


@dataclass(frozen=True)
class GenEvalReport:
    """An evaluation: its numbers, a record per image, and the settings that would repeat it."""

    summary: Summary
    records: tuple[Record, ...]
    settings: Mapping[str, Any]

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


def evaluate(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    detector: Detector,
    *,
    sampling: Sampling,
    num_steps: int,
    guidance: float,
    images_per_prompt: int,
    stream: Stream,
    batch: int,
    process: Process = ALONE,
    progress: Callable[[int, int], None] | None = None,
    sink: ImageSink | None = None,
) -> GenEvalReport:
    """Run GenEval on a generator.

    Image i of prompt p is painted from ``stream.child("eval", p, i)``: the same stream gives the same noise
    before and after training, for every ``batch`` and any number of processes, among which the images are dealt
    out. Images are judged after rounding to 8 bits, as a PNG holds them.

    Args:
        generator: what is evaluated.
        prompts: with GenEval metadata, all six tasks among them.
        detector: finds objects and names colours.
        sampling: schedule and temperatures.
        num_steps: T, unmasking steps.
        guidance: w in (1 + w) * cond - w * uncond.
        images_per_prompt: officially 4.
        stream: the randomness of this evaluation.
        batch: images per rollout; memory and speed only.
        process: this one; every process returns the whole report.
        progress: called with the images done and their total after every batch, as often on every process.
        sink: called with prompt index, image index and Float [3, H, W] in [0, 1] of every image, such as
            :func:`image_folder`.

    Raises:
        RecipeError: a prompt cannot be judged.
        TrainingError: a task has no prompt, or the detector fails its self-test.
    """
    check_prompts(prompts, detector)
    check_tasks({prompt.metadata["tag"] for prompt in prompts})
    detector.self_test()
    every = [(p, i) for p in range(len(prompts)) for i in range(images_per_prompt)]
    pairs = every[process.rank :: process.world_size]
    painted = generate(
        generator,
        [prompts[p] for p, _ in pairs],
        [stream.child("eval", p, i) for p, i in pairs],
        num_steps,
        sampling,
        guidance,
        batch,
    )
    records: list[Record] = []
    for _ in range(0, len(every[:: process.world_size]), batch):  # as often on every process
        indices, images = next(painted, NO_IMAGES)
        for index, image in zip(indices, torch.round(images * 255) / 255, strict=True):
            p, i = pairs[index]
            records.append(judge_image(image, prompts[p], detector, image_name(p, i)))
            if sink is not None:
                sink(p, i, image)
        if progress is not None:
            progress(min(len(records) * process.world_size, len(every)), len(every))
    settings = {
        "label": detector.label,
        "protocol": PROTOCOL,
        "detector": results.describe(detector),
        "generator": results.describe(generator),
        "prompts_sha256": results.prompts_digest(prompts),
        "images_per_prompt": images_per_prompt,
        "num_steps": num_steps,
        "guidance": guidance,
        "schedule": sampling.schedule,
        "temperature_rule": sampling.temperature_rule,
        "tau_init": sampling.tau_init,
        "seed": stream.seed,
        "stream": list(stream.path),
    }
    records = sorted(process.gather_objects(records), key=lambda record: record.filename)
    return GenEvalReport(summarise(records), tuple(records), settings)


def judge_image(image: Tensor, prompt: Prompt, detector: Detector, filename: str) -> Record:
    """Detect and judge one image, Float [3, H, W] in [0, 1]."""
    tag = prompt.metadata["tag"]
    objects = select(detector.detect(image), tag)
    correct, reason = judge(image, objects, prompt.metadata, detector.color)
    return Record(filename, tag, prompt.text, correct, reason, metadata_line(prompt), details(objects))


def image_name(prompt: int, image: int) -> str:
    """Return where the official layout keeps an image, relative to its folder."""
    return f"{prompt:05d}/samples/{image:05d}.png"


def image_folder(folder: Path, prompts: Sequence[Prompt]) -> ImageSink:
    """Return a ``sink`` that writes the official layout.

    That is ``00000/metadata.jsonl`` and ``00000/samples/00000.png``, counted on.

    Raises:
        TrainingError: on use, where ``folder`` cannot be written.
    """

    def write(prompt: int, image: int, pixels: Tensor) -> None:
        path = folder / image_name(prompt, image)
        if image == 0:
            line = metadata_line(prompts[prompt]) + "\n"
            results.write_text(folder / f"{prompt:05d}" / "metadata.jsonl", line)
        array = torch.round(pixels * 255).to(torch.uint8).permute(1, 2, 0).numpy()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        except OSError as error:
            raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error

    return write


def write_report(report: GenEvalReport, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write ``results.jsonl``, the official rows, and ``summary.json``, the numbers and how to repeat them.

    Args:
        report: what to write.
        folder: made if it is missing.
        provenance: what the caller knows of the weights: recipe digest, checkpoint, update.

    Raises:
        TrainingError: the folder cannot be written.
    """
    summary = {
        **asdict(report.summary),
        "settings": report.settings,
        "provenance": provenance,
        "versions": results.versions(),
    }
    rows = "".join(record.line() + "\n" for record in report.records)
    results.write_text(folder / "results.jsonl", rows)
    results.write_text(folder / "summary.json", results.to_json(summary))


def read_report(folder: Path) -> GenEvalReport:
    """Read what :func:`write_report` wrote; the numbers are computed anew from the rows.

    Raises:
        TrainingError: a file is missing or damaged.
    """
    try:
        saved = json.loads(results.read_text(folder / "summary.json"))
        rows = results.read_text(folder / "results.jsonl").splitlines()
        records = tuple(Record(**json.loads(row)) for row in rows)
        images, settings = saved["images"], saved["settings"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrainingError(f"the results in {str(folder)!r} are damaged: {error}") from error
    if len(records) != images:
        raise TrainingError(f"the results in {str(folder)!r} are damaged: {len(records)} of {images} rows")
    return GenEvalReport(summarise(records), records, settings)


@dataclass(frozen=True)
class Difference:
    """After minus before; ``se`` is over prompts, each paired with itself, and NaN for a single one."""

    mean: float
    se: float


@dataclass(frozen=True)
class Comparison:
    """What changed between two evaluations; ``fell`` names every task whose mean is lower after."""

    overall: Difference
    tasks: Mapping[str, Difference]
    fell: tuple[str, ...]


def compare(before: GenEvalReport, after: GenEvalReport) -> Comparison:
    """Compare two generators on the same prompts, noise, steps and guidance, prompt by prompt.

    Raises:
        RecipeError: the two evaluations differ in more than the generator.
    """
    different = [key for key in before.settings if before.settings[key] != after.settings.get(key)]
    different = [key for key in different if key != "generator"]
    if different:
        names = ", ".join(different)
        raise RecipeError(f"these evaluations cannot be compared: they differ in {names}")
    tasks = {task: _difference(before, after, task) for task in TASKS}
    overall = Difference(
        sum(task.mean for task in tasks.values()) / len(TASKS),
        math.sqrt(sum(task.se**2 for task in tasks.values())) / len(TASKS),
    )
    fell = tuple(name for name, task in tasks.items() if task.mean < -_ROUNDING)
    return Comparison(overall, tasks, fell)


def _difference(before: GenEvalReport, after: GenEvalReport, task: str) -> Difference:
    old, new = (
        by_prompt([record for record in report.records if record.tag == task]) for report in (before, after)
    )
    gains = [sum(new[prompt]) / len(new[prompt]) - sum(old[prompt]) / len(old[prompt]) for prompt in old]
    return Difference(sum(gains) / len(gains), standard_error(gains))
