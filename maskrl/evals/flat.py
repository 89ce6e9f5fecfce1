"""Images that lie all in one folder without a prompt to each, as other tools leave them; and the formats of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskrl.errors import RecipeError
from maskrl.evals.images import ImageFolder, is_official, open_folder
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jfif": "jpeg"}
_BEGINNINGS = {
    b"\x89PNG": "png",
    b"\xff\xd8": "jpeg",
}  # what files of a format begin with, whatever they are called
_BESIDE = "._"  # what macOS keeps beside a file, under the name of it; no image


def open_any(folder: Path, prompts: Sequence[Prompt] | None) -> ImageFolder:
    """Look through a folder in either layout; no image is opened yet.

    Args:
        folder: in GenEval's layout; or with PNG and JPEG files in it, among other files, which are left alone.
        prompts: what the images were made of, if that is known.

    Raises:
        RecipeError: there is no such folder, it holds fewer images than there are prompts, or those of its layout are
            others.
    """
    if not folder.is_dir():
        raise RecipeError(f"there is no image folder {str(folder)!r}")
    if is_official(folder):
        images = open_folder(folder)
        if prompts and images.comparable()["prompts_sha256"] != prompts_digest(prompts):
            raise RecipeError(f"the images in {str(folder)!r} are of other prompts than --prompts has")
        return images
    found = (path for path in folder.iterdir() if path.suffix.lower() in _FORMATS)
    names = sorted(path.name for path in found if not path.name.startswith(_BESIDE))
    if unreadable := [name for name in names if not _is_text(name)]:
        raise RecipeError(
            f"the file name {unreadable[0]!r} in {str(folder)!r} is no text in UTF-8: rename it"
        )
    if prompts and len(names) < len(prompts):
        raise RecipeError(
            f"{str(folder)!r} holds {len(names)} PNG or JPEG images; {len(prompts)} prompts need as many"
        )
    digest = None if prompts is None else prompts_digest(prompts)
    return ImageFolder(folder, (), [names], None, digest)


def check_number(images: int, where: str) -> None:
    """Refuse so few images that their features have no covariance.

    Raises:
        RecipeError: there are fewer than two; ``where`` begins the message.
    """
    if images < 2:
        raise RecipeError(f"{where} {images} PNG or JPEG images; a covariance needs two")


def formats(images: ImageFolder) -> list[str]:
    """Return the formats that files have, not the ones that they are called after: JPEG moves an FID."""
    return sorted({_format(images.folder / name) for _, name in images.pairs()})


def _is_text(name: str) -> bool:
    """Tell whether a file's name is UTF-8: Python keeps bytes that are not as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _format(path: Path) -> str:
    try:
        with path.open("rb") as file:
            beginning = file.read(4)
    except OSError:  # whoever reads the image says why it cannot be read
        beginning = b""
    known = (name for first, name in _BEGINNINGS.items() if beginning.startswith(first))
    return next(known, _FORMATS.get(path.suffix.lower(), "other"))
