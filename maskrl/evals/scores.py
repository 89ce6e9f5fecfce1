"""The mean of a reward over images: CLIP score, ImageReward, or any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrl.evals import results
from maskrl.evals.images import ImageFolder
from maskrl.evals.journal import close, judge_images
from maskrl.evals.results import Number, Result
from maskrl.evals.together import Progress
from maskrl.geneval.summary import standard_error
from maskrl.grpo import answers
from maskrl.grpo.judging import check_finite
from maskrl.grpo.processes import Process
from maskrl.identity import identity
from maskrl.interfaces import RewardModel
from maskrl.runtime import record
from maskrl.types import Prompt


def score_images(
    evaluation: str,
    label: str,
    images: ImageFolder,
    reward: RewardModel,
    out: Path,
    provenance: Mapping[str, Any],
    *,
    batch: int,
    process: Process,
    progress: Progress,
) -> Result:
    """Score every image of a folder and write ``results.jsonl`` and ``summary.json``.

    Args:
        evaluation: what it is called on the command line.
        label: what the number may be called; it names the variant.
        images: what is scored.
        reward: who scores.
        out: a folder for the results; a killed evaluation is gone on with.
        provenance: what the caller knows of the images' origin.
        batch: images per call; memory and speed only.
        process: this one; the main process writes.
        progress: called with the images done and their total.

    Raises:
        TrainingError: an image is damaged, images differ in size, or ``out`` cannot be written.
    """
    settings = {"reward": identity(reward), **images.comparable()}

    def judge(
        pixels: Sequence[Tensor], prompts: Sequence[Prompt], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        scores = score_each(reward, pixels, prompts, batch)
        return [
            {"prompt": prompt.text, "score": score} for prompt, score in zip(prompts, scores, strict=True)
        ]

    rows = judge_images(images, judge, settings, out, batch=batch, process=process, progress=progress)
    by_prompt = [rows[start : start + images.per_prompt] for start in range(0, len(rows), images.per_prompt)]
    means = [sum(row["score"] for row in group) / len(group) for group in by_prompt]
    result = Result(
        evaluation=evaluation,
        label=label,
        numbers={"mean": Number(sum(means) / len(means), standard_error(means))},
        images=len(rows),
        settings=settings,
        provenance=provenance,
        versions=record.versions(),
    )
    if process.rank == 0:
        result = replace(result, rows_sha256=results.write_rows(out, rows))
        results.write_result(result, out)
        close(out)
    return result


def score_each(
    reward: RewardModel, pixels: Sequence[Tensor], prompts: Sequence[Prompt], batch: int
) -> list[float]:
    """Score K images, each Float [3, H, W] in [0, 1], with a prompt each; those of one size ``batch`` at a time.

    Raises:
        TrainingError: a score is not finite.
        PluginError: a score is no number.
    """
    score: dict[int, float] = {}
    for places in _by_size(pixels):
        for start in range(0, len(places), batch):
            some = places[start : start + batch]
            together = torch.stack([pixels[i] for i in some])
            asked = [prompts[i] for i in some]
            found = answers.score(reward, together, asked)
            check_finite(type(reward).__name__, found, asked, "evaluation")
            score |= dict(zip(some, found.tolist(), strict=True))
    return [score[i] for i in range(len(pixels))]


def _by_size(pixels: Sequence[Tensor]) -> list[list[int]]:
    """Group the places of images of one size: a reward takes them together."""
    sizes = sorted({tuple(image.shape) for image in pixels})
    return [[i for i, image in enumerate(pixels) if tuple(image.shape) == size] for size in sizes]
