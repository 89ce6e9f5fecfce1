"""Pictures to judge a run by: the same prompts and the same noise, before, during and after training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from maskrl.evals.generate import generate
from maskrl.grpo.config import Sampling
from maskrl.interfaces import MaskedGenerator
from maskrl.training.sheet import Mark, save_sheet
from maskrl.types import Prompt, Stream

PER_PROMPT = 4  # images of each prompt in a sheet of samples
MOST_PROMPTS = 6  # of the run's own that are shown where a recipe names none
WORDS = 40  # of a caption: a longer one is cut in the picture


@dataclass(frozen=True)
class SampleSheets:
    """Paints the run's sample prompts: image i of prompt p always from ``stream.child(p, i)``.

    ``is_right`` judges an image of a prompt, Float [3, H, W] in [0, 1]; None of one that it knows nothing about.
    """

    prompts: Sequence[Prompt]
    stream: Stream
    num_steps: int
    sampling: Sampling
    batch: int
    is_right: Callable[[Tensor, Prompt], Mark]

    def paint(self, generator: MaskedGenerator) -> Samples:
        """Paint ``PER_PROMPT`` images of every prompt, and judge them."""
        cells = [(p, i) for p in range(len(self.prompts)) for i in range(PER_PROMPT)]
        painted = generate(
            generator,
            [self.prompts[p] for p, _ in cells],
            [self.stream.child(p, i) for p, i in cells],
            self.num_steps,
            self.sampling,
            self.sampling.guidance_eval,
            self.batch,
        )
        images = torch.cat([images for _, images in painted])
        marks = [self.is_right(image, self.prompts[p]) for (p, _), image in zip(cells, images, strict=True)]
        return Samples(
            [_caption(prompt.text) for prompt in self.prompts],
            images.reshape(len(self.prompts), PER_PROMPT, *images.shape[1:]),
            [marks[start : start + PER_PROMPT] for start in range(0, len(marks), PER_PROMPT)],
        )


@dataclass(frozen=True)
class Samples:
    """What was painted: P captions, Float [P, PER_PROMPT, 3, H, W] in [0, 1], on the CPU, and marks."""

    captions: Sequence[str]
    images: Tensor
    marks: Sequence[Sequence[Mark]]

    def row(self, noise: int) -> tuple[Tensor, list[Mark]]:
        """Return the images that come from one noise, and their marks: Float [P, 3, H, W], P."""
        return self.images[:, noise], [marks[noise] for marks in self.marks]


def save_samples(path: Path, samples: Samples) -> None:
    """Write a column per prompt and a row per noise."""
    _save(path, samples.captions, [samples.row(noise) for noise in range(PER_PROMPT)], ())


def save_before_after(path: Path, before: Samples, after: Samples) -> None:
    """Write all images of before above all of after, which are from the same noises."""
    rows = [samples.row(noise) for samples in (before, after) for noise in range(PER_PROMPT)]
    _save(path, tallies(before, after), rows, ["before"] * PER_PROMPT + ["after"] * PER_PROMPT)


def tallies(before: Samples, after: Samples) -> list[str]:
    """Return the captions, each with how many of its images are right, where all of them are judged."""
    told = []
    for caption, *both in zip(before.captions, before.marks, after.marks, strict=True):
        one, other = (sum(map(bool, marks)) for marks in both)
        is_judged = all(mark is not None for marks in both for mark in marks)
        told.append(f"{caption}: {one} of {PER_PROMPT} right, then {other}" if is_judged else caption)
    return told


def _save(
    path: Path, captions: Sequence[str], rows: Sequence[tuple[Tensor, list[Mark]]], labels: Sequence[str]
) -> None:
    is_judged = any(mark is not None for _, marks in rows for mark in marks)
    save_sheet(
        path,
        captions,
        [images for images, _ in rows],
        labels,
        [marks for _, marks in rows] if is_judged else (),
    )


def _caption(text: str) -> str:
    words = text.split()
    return " ".join(words[:WORDS]) + (" …" if len(words) > WORDS else "")


def choose_prompts(
    named: Sequence[str] | None, evaluated: Sequence[Prompt], trained: Sequence[Prompt]
) -> list[Prompt]:
    """Choose what a run's pictures show.

    Args:
        named: the recipe's own choice; one that the evaluation has too brings its metadata, so that it can be judged.
        evaluated: the evaluation's prompts; where nothing is named, the first of each of its tasks (``tag``), or where
            there is but one, some from all over the list.
        trained: the training prompts; where there is no evaluation, some from all over the list.
    """
    if named is not None:
        known = {prompt.text: prompt for prompt in evaluated}
        return [known.get(text, Prompt(text)) for text in named]
    first = {prompt.metadata.get("tag"): prompt for prompt in reversed(evaluated)}
    if len(first) > 1:
        return [prompt for prompt in evaluated if first[prompt.metadata.get("tag")] is prompt][:MOST_PROMPTS]
    different = list({prompt.text: prompt for prompt in evaluated or trained}.values())
    stride = max(len(different) // MOST_PROMPTS, 1)
    return different[::stride][:MOST_PROMPTS]
