"""A run's sample sheets as they stand in the page: its own files, fewer and smaller where they would be too much."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MOST_SHEETS = 12  # of a run
LARGEST, WIDEST = 300_000, 1600  # bytes and pixels above which a picture is compressed
QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """A picture for the page: what it shows, its bytes as a ``data:`` address, its size in pixels."""

    label: str
    address: str
    width: int
    height: int


def sheets(run: Path) -> list[Picture]:
    """Return the sample sheets, from before training to after it; of many, some from all over."""
    folder = run / "samples"
    during = sorted(folder.glob("update_*.png"), key=lambda path: (len(path.stem), path.stem))
    named = [("before training", folder / "before.png")]
    named += [(f"after update {int(path.stem[7:])}", path) for path in during if path.stem[7:].isdigit()]
    named += [("after training", folder / "after.png")]
    return [found for label, path in _some(named) if (found := picture(label, path)) is not None]


def before_after(run: Path) -> Picture | None:
    """Return the sheet that has every prompt before and after, from the same noise."""
    return picture("before and after", run / "samples" / "before_after.png")


def picture(label: str, path: Path) -> Picture | None:
    """Read a picture; None where there is none, or none that can be read."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size, kind = image.size, "png"
            if len(data) > LARGEST or image.width > WIDEST:
                data, size = _compressed(image)
                kind = "webp"
    except (OSError, ValueError, SyntaxError):  # what PIL raises of half a PNG
        return None
    return Picture(label, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", *size)


def _compressed(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    small = image.convert("RGB")
    small.thumbnail((WIDEST, 10 * WIDEST))
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=QUALITY)
    return buffer.getvalue(), small.size


def _some(named: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    there = [one for one in named if one[1].is_file()]
    if len(there) <= MOST_SHEETS:
        return there
    step = (len(there) - 1) / (MOST_SHEETS - 1)
    return [there[round(i * step)] for i in range(MOST_SHEETS)]
