"""The groups that a run kept a record of: every image with its reward and its advantage."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from maskrl.report.charts import short
from maskrl.report.films import Film, read_film
from maskrl.training.groups import FOLDER

MOST_EXTREMES = 6  # images shown as the best, and as the worst


@dataclass(frozen=True)
class Painted:
    """An image that was learnt from, as the page shows it; ``change`` is "better", "worse", or "" where neither."""

    prompt: str
    update: int
    address: str
    value: float
    reward: str
    advantage: str
    change: str


@dataclass(frozen=True)
class Group:
    """The images of one prompt in one update."""

    prompt: str
    update: int
    kept: bool
    images: Sequence[Painted]
    films: Sequence[tuple[Painted, Film]]


def recorded_groups(run: Path, troubles: list[str]) -> list[Group]:
    """Return every group of which there is a record, in order; of one that is damaged ``troubles`` gets a line."""
    found: list[Group] = []
    for path in sorted((run / FOLDER).glob("update_*.json"), key=lambda path: (len(path.stem), path.stem)):
        try:
            found += _read(path)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            SyntaxError,
        ) as error:  # a cut PNG's the last
            reason = f"{type(error).__name__}: {error}".splitlines()[0].replace(f"{run}/", "")
            troubles.append(f"{FOLDER}/{path.name}, or its picture, is damaged ({reason}): it is not shown")
    return found


def extremes(found: Sequence[Group]) -> tuple[list[Painted], list[Painted]]:
    """Return the images of the highest rewards, the best first, and of the lowest, the worst first."""
    every = sorted((image for group in found for image in group.images), key=lambda image: image.value)
    most = min(MOST_EXTREMES, len(every) // 2)
    return every[::-1][:most], every[:most]


def newest(found: Sequence[Group]) -> list[Group]:
    """Return the groups of the last update that has any."""
    return [group for group in found if group.update == found[-1].update]


def _read(path: Path) -> list[Group]:
    record = json.loads(path.read_text(encoding="utf-8"))
    with Image.open(path.with_suffix(".png")) as sheet:
        sheet.load()
        size = record["width"], record["height"]
        return [
            _group(group, record, list(_images(sheet, row, group, record, size)))
            for row, group in enumerate(record["groups"])
        ]


def _group(group: Any, record: Any, images: Sequence[Painted]) -> Group:
    films = [read_film(film, record["grid"]) for film in group.get("films", ())]
    return Group(
        prompt=str(group["prompt"]),
        update=record["update"],
        kept=group["kept"],
        images=images,
        films=[(images[film.image], film) for film in films],
    )


def _images(
    sheet: Image.Image, row: int, group: Any, record: Any, size: tuple[int, int]
) -> Iterator[Painted]:
    width, height = size
    for column, (reward, advantage) in enumerate(zip(group["rewards"], group["advantages"], strict=True)):
        place = (column * width, row * height, (column + 1) * width, (row + 1) * height)
        buffer = io.BytesIO()
        sheet.crop(place).save(buffer, format="PNG")
        yield Painted(
            prompt=str(group["prompt"]),
            update=record["update"],
            address=f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}",
            value=float(reward),
            reward=short(reward),
            advantage=("+" if advantage > 0 else "") + short(advantage),
            change="better" if advantage > 0 else "worse" if advantage < 0 else "",
        )
