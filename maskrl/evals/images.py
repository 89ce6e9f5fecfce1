"""Images of prompts in a folder, in GenEval's official layout: painted once, also in spite of kills, and read often.

::

    settings.json                 how they were painted; not there where another tool did
    00000/metadata.jsonl          the prompt and what is known of it, one JSON object
    00000/samples/00000.png ...   its images
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.generate import paint_pairs
from maskrl.evals.sameness import differing, unknown
from maskrl.evals.together import Progress, dealt, on_main
from maskrl.geneval.metadata import metadata_line
from maskrl.grpo.config import Sampling
from maskrl.grpo.processes import Process
from maskrl.identity import identity
from maskrl.interfaces import MaskedGenerator
from maskrl.pixels import to_bytes
from maskrl.runtime import lora
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt, Stream

SETTINGS = "settings.json"
_OURS = {
    "generator": dict,
    "prompts_sha256": str,
    "images_per_prompt": int,
}  # what tells our settings from others
_PNG = (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")  # how a PNG begins and ends
# The official evaluator takes folders of any digits and skips what is called otherwise; we take JPEG files too.
_FOLDER, _IMAGE = re.compile(r"[0-9]+"), re.compile(r"[0-9]+\.(png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFolder:
    """A folder whose every prompt has as many images.

    Attributes:
        folder: where.
        prompts: with the metadata that lies beside the images.
        names: of each prompt's images, relative to ``folder``.
        settings: how they were painted; None where another tool did.
    """

    folder: Path
    prompts: Sequence[Prompt]
    names: Sequence[Sequence[str]]
    settings: Mapping[str, Any] | None
    _hashes: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def per_prompt(self) -> int:
        """Images of each prompt."""
        return len(self.names[0])

    @property
    def generator(self) -> Mapping[str, Any] | None:
        """What painted them, if that is known."""
        return (self.settings or {}).get("generator")

    def pairs(self) -> list[tuple[Prompt, str]]:
        """List every image with its prompt, in order."""
        return [
            (prompt, name) for prompt, names in zip(self.prompts, self.names, strict=True) for name in names
        ]

    def only(self, wanted: Callable[[Prompt], bool]) -> ImageFolder:
        """Leave out the prompts that are not wanted, and their images.

        Raises:
            RecipeError: none is wanted.
        """
        kept = [i for i, prompt in enumerate(self.prompts) if wanted(prompt)]
        if not kept:
            raise RecipeError(f"no prompt in {str(self.folder)!r} is one that this evaluation can use")
        return replace(self, prompts=[self.prompts[i] for i in kept], names=[self.names[i] for i in kept])

    def comparable(self) -> dict[str, Any]:
        """Return what must be equal in two results that are compared: prompts, and how images were painted, if known.

        The generator is not among it: it is what is compared.
        """
        painted = {key: value for key, value in (self.settings or {}).items() if key != "generator"}
        return {
            **painted,
            "prompts_sha256": prompts_digest(self.prompts),
            "images_per_prompt": self.per_prompt,
        }

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every image's file by its name; each is read once.

        Raises:
            RecipeError: one is gone.
        """
        names = [name for names in self.names for name in names if name not in self._hashes]
        self._hashes.update((name, files.sha256(self.folder / name)) for name in names)
        return {name: self._hashes[name] for names in self.names for name in names}

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others of the same prompts: what they hold; ``folder`` is for people."""
        return {"folder": str(self.folder.resolve()), results.CONTENTS: digest_of(self.hashes())}

    def read(self, name: str) -> Tensor:
        """Read one image: Float [3, H, W] in [0, 1].

        Raises:
            TrainingError: it is damaged, or not RGB.
        """
        path = self.folder / name
        try:
            with Image.open(path) as image:
                if image.mode != "RGB":
                    raise TrainingError(
                        f"{str(path)!r} is {image.mode}, not RGB: convert it, all like it alike"
                    )
                pixels = np.asarray(
                    ImageOps.exif_transpose(image)
                )  # turned as it is to be shown, as officially
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise TrainingError(
                f"{str(path)!r} is too large to be read safely: {error}; reduce it"
            ) from error
        except (OSError, UnidentifiedImageError, SyntaxError) as error:  # a cut PNG is any of these
            instead = (
                "put a whole one in its place" if self.settings is None else "delete it and paint it again"
            )
            raise TrainingError(f"{str(path)!r} is no whole PNG: {instead}") from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return one sha256 of many files: of their names and theirs."""
    return files.sha256_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()))


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


def painted_settings(
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


def paint_folder(
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
    progress: Progress,
) -> None:
    """Paint what is missing in a folder; image i of prompt p always comes from ``stream.child("eval", p, i)``.

    Args:
        folder: new, or of the same settings: then it is gone on with.
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
        RecipeError: the folder holds something else, or images of other settings.
        TrainingError: it cannot be written.
    """
    settings = painted_settings(generator, prompts, images_per_prompt, num_steps, sampling, stream)
    on_main(process, lambda: _claim(folder, settings))
    every = [(p, i) for p in range(len(prompts)) for i in range(images_per_prompt)]
    missing = [(p, i) for p, i in every if not _is_whole(folder / image_name(p, i))]
    process.wait()  # nobody paints before everybody has looked
    for pairs in dealt(missing, len(every), batch, process, progress):
        images = paint_pairs(generator, prompts, pairs, stream, num_steps, sampling)
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


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return how the images of a folder were painted, or None if nobody says: another tool's file does not.

    Raises:
        TrainingError: what is said is damaged.
    """
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        saved = json.loads(results.read_text(path))
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{str(path)!r} is damaged: {error}; delete it to judge what is there") from error
    is_ours = isinstance(saved, dict) and all(isinstance(saved.get(key), kind) for key, kind in _OURS.items())
    return saved if is_ours else None


def is_official(folder: Path) -> bool:
    """Tell whether a folder looks like one of GenEval's layout."""
    return any(path.is_dir() and _FOLDER.fullmatch(path.name) for path in folder.iterdir())


def open_folder(folder: Path) -> ImageFolder:
    """Look through a folder in the official layout, whoever made it; no image is opened yet.

    Folders and images are in the order of their numbers; what is called otherwise is not looked at, as officially.

    Raises:
        RecipeError: there is no such folder, or a prompt has no metadata or fewer images than the others.
    """
    if not folder.is_dir():
        raise RecipeError(f"there is no image folder {str(folder)!r}")
    places = sorted(
        (path for path in folder.iterdir() if path.is_dir() and _FOLDER.fullmatch(path.name)), key=_number
    )
    if not places:
        raise RecipeError(f"{str(folder)!r} holds no images in GenEval's layout: 00000/samples/00000.png")
    prompts = [_read_prompt(place / "metadata.jsonl") for place in places]
    names = [[f"{place.name}/samples/{name}" for name in _images(place / "samples")] for place in places]
    most = max(map(len, names))
    if most == 0:
        raise RecipeError(f"{str(folder)!r} holds prompts and no images: 00000/samples/00000.png is missing")
    for place, found in zip(places, names, strict=True):
        if len(found) < most:
            raise RecipeError(
                f"{str(place)!r} has {len(found)} images and others have {most}: paint what is missing"
            )
    images = ImageFolder(folder, prompts, names, read_settings(folder))
    _check_whole(images)
    return images


def _check_whole(images: ImageFolder) -> None:
    """Refuse a folder that says how it was painted and does not hold all of it."""
    painted, found = images.settings or {}, images.comparable()
    keys = ("prompts_sha256", "images_per_prompt")
    if any(key in painted and painted[key] != found[key] for key in keys):
        raise RecipeError(
            f"{str(images.folder)!r} holds {len(images.prompts)} prompts with {images.per_prompt} images, which is"
            f" not what its {SETTINGS} says was painted; paint the rest with the same command, or delete {SETTINGS}"
            " to judge what is there"
        )


def _read_prompt(path: Path) -> Prompt:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        text = record.pop("prompt")
        if not isinstance(text, str):
            raise TypeError("the prompt is no text")
    except FileNotFoundError as error:
        raise RecipeError(f"{str(path)!r} is missing: it holds the prompt of the images beside it") from error
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RecipeError(
            f"{str(path)!r} is no metadata of GenEval's: one JSON object with a 'prompt'"
        ) from error
    return Prompt(text, record)


def _images(samples: Path) -> list[str]:
    found = samples.iterdir() if samples.is_dir() else ()
    images = (path for path in found if _IMAGE.fullmatch(path.name) and path.is_file())
    return [path.name for path in sorted(images, key=_number)]


def _number(path: Path) -> tuple[int, str]:
    """Sort by number; names of one number, 5 and 05, by text."""
    return int(path.name.partition(".")[0]), path.name
