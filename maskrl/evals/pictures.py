"""Images for FID: in GenEval's layout, or all in one folder without a prompt to each, as other tools leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.images import ImageFolder, digest_of, is_official, open_folder
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jfif": "jpeg"}
_BEGINNINGS = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpeg",
}  # what files of a format begin with, whatever they are called
_BESIDE = "._"  # what macOS keeps beside a file, under the name of it; no image
_MODES = ("RGB", "L")  # a grey photograph in colours is the same photograph


@dataclass(frozen=True)
class Pictures:
    """Images of a folder, in a fixed order.

    Attributes:
        folder: where.
        names: relative to it.
        comparable: what must be equal in two results that are compared.
        generator: what painted them, if that is known.
    """

    folder: Path
    names: Sequence[str]
    comparable: Mapping[str, Any]
    generator: Mapping[str, Any] | None

    def identity(self) -> dict[str, Any]:
        """Return what tells these images from others: what they hold; where they lie is for people."""
        hashes = {name: files.sha256(self.folder / name) for name in self.names}
        return {"folder": str(self.folder.resolve()), results.CONTENTS: digest_of(hashes)}

    def open(self, name: str) -> Image.Image:
        """Read one image, whole, in RGB.

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
                return image.convert("RGB")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise TrainingError(
                f"{str(path)!r} is too large to be read safely: {error}; reduce it"
            ) from error
        except (OSError, UnidentifiedImageError, SyntaxError) as error:  # a cut file is any of these
            raise TrainingError(f"{str(path)!r} is no whole image: make it again") from error


def open_pictures(folder: Path, prompts: Sequence[Prompt] | None) -> Pictures:
    """Look through a folder; no image is opened yet.

    Args:
        folder: in GenEval's layout; or with PNG and JPEG files in it, among other files, which are left alone.
        prompts: what the images were made of, if that is known.

    Raises:
        RecipeError: there is no such folder, it holds fewer than two images or fewer than there are prompts, or those
            of its layout are others.
    """
    if not folder.is_dir():
        raise RecipeError(f"there is no image folder {str(folder)!r}")
    if is_official(folder):
        pictures = of_prompts(open_folder(folder))
        if prompts and pictures.comparable["prompts_sha256"] != prompts_digest(prompts):
            raise RecipeError(f"the images in {str(folder)!r} are of other prompts than --prompts has")
    else:
        found = (path for path in folder.iterdir() if path.suffix.lower() in _FORMATS)
        names = sorted(path.name for path in found if not path.name.startswith(_BESIDE))
        if unreadable := [name for name in names if not _is_text(name)]:
            raise RecipeError(
                f"the file name {unreadable[0]!r} in {str(folder)!r} is no text in UTF-8: rename it"
            )
        digest = None if prompts is None else prompts_digest(prompts)
        pictures = Pictures(
            folder, names, {"prompts_sha256": digest, "formats": _formats(folder, names)}, None
        )
    least = max(2, len(prompts or ()))
    if len(pictures.names) < least:
        what = f"{least} prompts need as many" if prompts else "a covariance needs two"
        raise RecipeError(f"{str(folder)!r} holds {len(pictures.names)} PNG or JPEG images; {what}")
    return pictures


def check_number(images: int) -> None:
    """Refuse, before they are painted, so few images that they have no covariance.

    Raises:
        RecipeError: there would be fewer than two.
    """
    if images < 2:
        raise RecipeError(
            f"--prompts: {images} image would be painted, and a covariance needs two: --images-per-prompt 2,"
            " or more prompts"
        )


def _is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8: Python keeps bytes that are not as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def of_prompts(images: ImageFolder) -> Pictures:
    """Return the images of a folder in GenEval's layout."""
    names = [name for _, name in images.pairs()]
    comparable = {**images.comparable(), "formats": _formats(images.folder, names)}
    return Pictures(images.folder, names, comparable, images.generator)


def _formats(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the formats that files have, not the ones that they are called after: JPEG moves an FID."""
    return sorted({_format(folder / name) for name in names})


def _format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError:
        beginning = b""
    known = (name for first, name in _BEGINNINGS.items() if beginning.startswith(first))
    return next(known, _FORMATS.get(path.suffix.lower(), "other"))
