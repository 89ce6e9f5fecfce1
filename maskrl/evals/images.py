"""Images of prompts in a folder, in GenEval's official layout, or all in one place, as other tools leave them.

::

    settings.json                 how they were painted; not there where another tool did
    00000/metadata.jsonl          the prompt and what is known of it, one JSON object
    00000/samples/00000.png ...   its images
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt

SETTINGS = "settings.json"
_OURS = {
    "generator": dict,
    "prompts_sha256": str,
    "images_per_prompt": int,
}  # what tells our settings from others
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
_MODES = ("RGB", "L")  # a grey photograph in colours is the same photograph
# The official evaluator takes folders of any digits and skips what is called otherwise; we take JPEG files too.
_FOLDER, _IMAGE = re.compile(r"[0-9]+"), re.compile(r"[0-9]+\.(png|jpe?g)", re.IGNORECASE)


@dataclass(frozen=True)
class ImageFolder:
    """A folder whose every prompt has as many images.

    Attributes:
        folder: where.
        prompts: with the metadata that lies beside the images; none where it is not known which image is of which.
        names: of each prompt's images, relative to ``folder``; in one list where prompts are not known.
        settings: how they were painted; None where another tool did.
        made_of: the digest of the prompts, where no more is known of them; None if not even that is.
    """

    folder: Path
    prompts: Sequence[Prompt]
    names: Sequence[Sequence[str]]
    settings: Mapping[str, Any] | None
    made_of: str | None = None
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
        """List every image with its prompt, in order; with an empty one where prompts are not known."""
        prompts = self.prompts or [Prompt("")] * len(self.names)
        return [(prompt, name) for prompt, names in zip(prompts, self.names, strict=True) for name in names]

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
        if not self.prompts:
            return {"prompts_sha256": self.made_of}
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

    def read(self, name: str, turned: bool = True) -> Tensor:
        """Read one image: Float [3, H, W] in [0, 1].

        Args:
            name: of the image.
            turned: whether it is turned as it is to be shown, which EXIF data say.

        Raises:
            TrainingError: it is damaged, or has other channels than red, green and blue, or grey.
        """
        path = self.folder / name
        try:
            with Image.open(path) as image:
                if image.mode not in _MODES:
                    raise TrainingError(
                        f"{str(path)!r} is {image.mode}, neither RGB nor grey: convert it, all like it alike"
                    )
                pixels = np.asarray((ImageOps.exif_transpose(image) if turned else image).convert("RGB"))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise TrainingError(
                f"{str(path)!r} is too large to be read safely: {error}; reduce it"
            ) from error
        except (OSError, UnidentifiedImageError, SyntaxError) as error:  # a cut file is any of these
            instead = (
                "put a whole one in its place" if self.settings is None else "delete it and paint it again"
            )
            raise TrainingError(f"{str(path)!r} is no whole image: {instead}") from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return one sha256 of many files: of their names and theirs."""
    return files.sha256_text("".join(f"{name} {digest}\n" for name, digest in hashes.items()))


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
    settings = read_settings(folder)
    if settings is None:
        _check_no_hole(folder, places)
    prompts = [_read_prompt(place / "metadata.jsonl") for place in places]
    names = [[f"{place.name}/samples/{name}" for name in _images(place / "samples")] for place in places]
    most = max(map(len, names))
    if most == 0:
        raise RecipeError(
            f"{str(folder)!r} holds prompts and no images: {places[0].name}/samples/00000.png is missing"
            f"{_not_counted(places[0])}"
        )
    fullest = places[[len(found) for found in names].index(most)]
    for place, found in zip(places, names, strict=True):
        if len(found) < most:
            raise RecipeError(
                f"{str(place)!r} has {len(found)} images and {fullest.name!r} has {most}: paint what is missing"
                f"{_not_counted(place)}, or take out what is too much"
            )
    images = ImageFolder(folder, prompts, names, settings)
    _check_whole(images)
    return images


def _check_no_hole(folder: Path, places: Sequence[Path]) -> None:
    """Refuse folders whose numbers leave one out: a mean of what is left would be another number."""
    numbers = sorted({int(place.name) for place in places})
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise RecipeError(
                f"{str(folder)!r} has prompts {before} and {after} and none in between: put back what is missing, or"
                " give the folders numbers without a hole to judge what is there"
            )


def _not_counted(place: Path) -> str:
    """Name a file beside a prompt's images that is none by its name."""
    samples = place / "samples"
    counted = _images(samples)
    others = (
        sorted(path.name for path in samples.iterdir() if path.name not in counted)
        if samples.is_dir()
        else []
    )
    shown = [name for name in others if Path(name).suffix.lower() in _PICTURES]
    return f" ({shown[0]!r} is not counted: images are NUMBER.png or NUMBER.jpg)" if shown else ""


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
        record = json.loads(path.read_text(encoding="utf-8-sig"))
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
