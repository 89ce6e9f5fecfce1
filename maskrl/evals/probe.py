"""Relative correctness over a folder: a detector says which images are right, a reward scores what is said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrl import files
from maskrl.asking import asking
from maskrl.errors import TrainingError
from maskrl.evals import results
from maskrl.evals.geneval import PROTOCOL, judge_image
from maskrl.evals.images import ImageFolder
from maskrl.evals.journal import close, judge_images
from maskrl.evals.relative_correctness import (
    Margin,
    RelativeCorrectness,
    Row,
    captions,
    exchange,
    has_captions,
    rank_groups,
    summarise,
)
from maskrl.evals.results import Number, Result
from maskrl.evals.scores import score_each
from maskrl.evals.together import Progress
from maskrl.geneval.metadata import asked_number, check_prompts
from maskrl.grpo.processes import Process
from maskrl.identity import identity
from maskrl.interfaces import Detector, RewardModel
from maskrl.runtime import record
from maskrl.types import Prompt, Stream

REPORT = "relative_correctness.json"


def countable(prompt: Prompt) -> bool:
    """Tell whether GenEval's metadata ask for nothing but a number of one class, which has a half and a double.

    Raises:
        RecipeError: the metadata are malformed.
    """
    asked = asked_number(prompt)
    return asked is not None and has_captions(asked[1])


def check(prompts: Sequence[Prompt], detector: Detector) -> None:
    """See that a probe can be done, before anything is painted for it; all prompts are :func:`countable`.

    Raises:
        RecipeError: a prompt cannot be judged, or all ask for one class.
        TrainingError: the detector fails its self-test.
    """
    check_prompts(prompts, detector)
    exchange([_asked(prompt)[0] for prompt in prompts], Stream(0))
    with asking(detector):
        detector.self_test()


def probe(
    images: ImageFolder,
    detector: Detector,
    reward: RewardModel,
    out: Path,
    provenance: Mapping[str, Any],
    *,
    label: str,
    stream: Stream,
    batch: int,
    process: Process,
    progress: Progress,
) -> tuple[RelativeCorrectness, Result]:
    """Judge and score every image of a folder, and write ``results.jsonl``, ``summary.json`` and ``REPORT``.

    Args:
        images: of prompts that are :func:`countable`, of two classes or more.
        detector: says which images show the number that their prompt asks for.
        reward: what is probed.
        out: a folder for the results; a killed evaluation is gone on with.
        provenance: what the caller knows of the images' origin.
        label: what the numbers may be called; it names the reward.
        stream: the randomness of the control and of the intervals.
        batch: images per call; memory and speed only.
        process: this one; the main process writes.
        progress: called with the images done and their total.

    Raises:
        RecipeError: a prompt cannot be judged, all ask for one class, or ``out`` holds results of other settings.
        TrainingError: no image shows its number, one is damaged, the detector fails its self-test, or ``out`` cannot be
            written.
    """
    check(images.prompts, detector)
    pairs = images.pairs()
    drawn = exchange([_asked(prompt)[0] for prompt, _ in pairs], stream.child("control"))
    control = {name: pairs[other][1] for (_, name), other in zip(pairs, drawn, strict=True)}
    settings = {
        "protocol": PROTOCOL,
        "detector": identity(detector),
        "reward": identity(reward),
        "control_seed": stream.seed,
        **images.comparable(),
    }

    def judge(
        pixels: Sequence[Tensor], prompts: Sequence[Prompt], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        rows = []
        judged: list[Tensor] = []
        against: list[Prompt] = []
        for image, prompt, name in zip(pixels, prompts, names, strict=True):
            correct = judge_image(image, prompt, detector, name).correct
            said = [Prompt(text) for text in captions(*_asked(prompt))] if correct else []
            shown = [image, images.read(control[name])] if correct else []
            judged += [image, *(other for other in shown for _ in said)]
            against += [prompt, *said, *said]
            rows.append({"prompt": prompt.text, "correct": correct, "control": control[name]})
        scores = iter(score_each(reward, judged, against, batch))
        for row in rows:
            row["score"] = next(scores)
            for key in ("captions", "captions_on_control"):
                row[key] = [next(scores) for _ in range(3)] if row["correct"] else None
        return rows

    rows = judge_images(images, judge, settings, out, batch=batch, process=process, progress=progress)
    report = _report(rows, [_asked(prompt)[1] for prompt, _ in pairs], stream)
    result = Result(
        evaluation="relative_correctness",
        label=label,
        numbers=_numbers(report),
        images=len(rows),
        settings=settings,
        provenance=provenance,
        versions=record.versions(),
    )
    if process.rank == 0:
        result = replace(result, rows_sha256=results.write_rows(out, rows))
        files.write_text(out / REPORT, results.to_json({**asdict(report), "holds": report.holds}))
        results.write_result(result, out)
        close(out)
    return report, result


def _asked(prompt: Prompt) -> tuple[str, int]:
    asked = asked_number(prompt)
    assert asked is not None, f"{prompt.text!r} asks for no number"
    return asked


def _report(rows: Sequence[Mapping[str, Any]], numbers: Sequence[int], stream: Stream) -> RelativeCorrectness:
    groups = [row["filename"].partition("/")[0] for row in rows]
    right = [i for i, row in enumerate(rows) if row["correct"]]
    if not right:
        raise TrainingError(
            f"none of {len(rows)} images shows the number that its prompt asks for: there is nothing to score"
        )
    ranking = rank_groups(
        torch.tensor([row["score"] for row in rows]),
        torch.tensor([row["correct"] for row in rows]),
        groups,
        stream,
    )
    return summarise(
        torch.tensor([rows[i]["captions"] for i in right]),
        torch.tensor([rows[i]["captions_on_control"] for i in right]),
        [numbers[i] for i in right],
        [groups[i] for i in right],
        ranking,
        stream,
    )


def _numbers(report: RelativeCorrectness) -> dict[str, Number]:
    """Return the headlines; intervals and single numbers are in ``REPORT``."""
    pooled = report.pooled
    means = {
        name: Number(getattr(pooled, name).value, getattr(pooled, name).se)
        for name in ("half", "same", "double")
    }
    wins = {
        "wins_over_half": Number(pooled.over_half.wins, math.nan),
        "wins_over_double": Number(pooled.over_double.wins, math.nan),
        "top": Number(pooled.top, math.nan),
        "auc": Number(report.ranking.auc, math.nan),
    }
    return (
        _margins("", pooled)
        | _margins("control_", report.control)
        | _margins("beyond_text_", report.beyond_text)
        | means
        | wins
    )


def _margins(prefix: str, row: Row) -> dict[str, Number]:
    def number(margin: Margin) -> Number:
        return Number(margin.mean, margin.se)

    return {
        f"{prefix}over_half": number(row.over_half),
        f"{prefix}over_double": number(row.over_double),
    }
