"""Painting a folder of images: each once, also in spite of kills, and never with other settings than the first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from maskrl import files
from maskrl.errors import RecipeError
from maskrl.evals import results
from maskrl.evals.generate import sample_pairs
from maskrl.evals.images import SETTINGS, read_settings
from maskrl.evals.ranks import ShowProgress, check_same, dealt, run_on_main
from maskrl.evals.sameness import differing, unknown
from maskrl.geneval.metadata import metadata_line
from maskrl.grpo.config import Sampling
from maskrl.grpo.processes import Process
from maskrl.identity import identity
from maskrl.interfaces import MaskedGenerator
from maskrl.pixels import to_bytes
from maskrl.runtime import lora
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt, Stream

_PNG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")  # how a PNG begins and ends


def _is_whole(path: Path) -> bool:
    """Tell whether a PNG is there from its beginning to its end; one that a full disk cut short is painted again."""
    try:
        with path.open("rb") as file:
            first = file.read(len(_PNG[0]))
            file.seek(-min(len(_PNG[1]), path.stat().st_size), os.SEEK_END)
            return (first, file.read()) == _PNG
    except OSError:
        return False


def image_name(prompt: int, image: int) -> str:
    """Return where the official layout keeps an image, relative to its folder."""
    return f"{prompt:05d}/samples/{image:05d}.png"


def write_image(path: Path, pixels: Tensor) -> None:
    """Write Float [3, H, W] in [0, 1] as a PNG, whole or not at all.

    Raises:
        TrainingError: the place cannot be written.
    """
    with files.whole(path) as unfinished:
        Image.fromarray(to_bytes(pixels)).save(unfinished, format="PNG")


def write_prompt(folder: Path, index: int, prompt: Prompt) -> None:
    """Write what lies beside a prompt's images."""
    files.write_text(folder / f"{index:05d}" / "metadata.jsonl", metadata_line(prompt) + "\n")


def sampling_settings(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    images_per_prompt: int,
    num_steps: int,
    sampling: Sampling,
    stream: Stream,
) -> dict[str, Any]:
    """Return all that decides what images look like."""
    adapters = lora.digest(generator.module)
    return {
        "generator": identity(generator.unwrapped())
        | ({} if adapters is None else {"adapters_sha256": adapters}),
        "precision": generator.precision,
        "prompts_sha256": prompts_digest(prompts),
        "images_per_prompt": images_per_prompt,
        "num_steps": num_steps,
        "guidance": sampling.guidance_eval,
        "schedule": sampling.schedule,
        "temperature_rule": sampling.temperature_rule,
        "tau_init": sampling.tau_init,
        "value_temperature_rule": sampling.value_temperature_rule,
        "value_temperature": sampling.value_temperature,
        "score": sampling.score,
        "position_policy": sampling.position_policy,
        "guidance_rule": sampling.guidance_rule,
        "seed": stream.seed,
        "stream": list(stream.path),
    }


def sample_folder(
    folder: Path,
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    num_steps: int,
    images_per_prompt: int,
    stream: Stream,
    batch: int,
    process: Process,
    progress: ShowProgress,
) -> None:
    """Paint what is missing in a folder; image i of prompt p always comes from ``stream.child("eval", p, i)``.

    Args:
        folder: new, or of the same settings: then it is resumed.
        generator: what paints.
        prompts: in the order of their folders.
        sampling: schedule, temperatures, guidance (of the evaluation).
        num_steps: T, unmasking steps.
        images_per_prompt: how many of each.
        stream: the randomness.
        batch: images per rollout; memory and speed only.
        process: this one; the missing images are dealt out among all.
        progress: called with the images done and their total, as often on every process.

    Raises:
        RecipeError: the folder holds something else, or images of other settings; or a process has read other
            weights or prompts than the main one.
        TrainingError: it cannot be written.
    """
    settings = sampling_settings(generator, prompts, images_per_prompt, num_steps, sampling, stream)
    check_same(process, settings)
    run_on_main(process, lambda: _claim(folder, settings))
    every = [(p, i) for p in range(len(prompts)) for i in range(images_per_prompt)]
    missing = [(p, i) for p, i in every if not _is_whole(folder / image_name(p, i))]
    process.wait()  # nobody paints before everybody has looked
    for pairs in dealt(missing, len(every), batch, process, progress):
        images = sample_pairs(generator, prompts, pairs, stream, num_steps, sampling)
        for (p, i), image in zip(pairs, images, strict=True):
            write_prompt(folder, p, prompts[p])
            write_image(folder / image_name(p, i), image)
    process.wait()  # all is there before anybody reads it


def _claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new folder, or check that they are those of the one that is there."""
    files.clear_leftovers(folder)
    saved = read_settings(folder)
    if saved is None:
        if not files.is_empty(folder):
            raise RecipeError(
                f"{str(folder)!r} holds something else than images of this evaluation; choose another --out, or"
                " score it with --images"
            )
        files.write_text(folder / SETTINGS, results.to_json(settings))
        return
    different = differing(settings, saved)
    if different:
        raise RecipeError(
            f"{str(folder)!r} holds images of other settings: they differ in {', '.join(different)}; choose"
            " another --out, or judge them with --images"
        )
    if unsure := unknown(settings, saved):
        raise RecipeError(
            f"the images in {str(folder)!r} are from before weights were told by their contents, so nobody can say"
            f" whether these would paint them ({', '.join(unsure)}); choose another --out, or judge them with --images"
        )
