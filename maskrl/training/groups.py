"""What an update learnt from: some of its groups, with the rewards and the advantages of their images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from maskrl import files
from maskrl.grpo.batch import Batch
from maskrl.pixels import to_bytes
from maskrl.runtime.checkpoint import name
from maskrl.training.film import films

FOLDER = "groups"
MOST_GROUPS = 4  # of an update
LARGEST = 128  # pixels of an image's longer side


@dataclass(frozen=True)
class GroupRecord:
    """Writes the first groups of every ``every``-th update.

    ``is_main``: whether this process writes; ``grid``: rows and columns of an image's tokens, or None.
    """

    every: int
    is_main: bool
    grid: tuple[int, int] | None

    def save_if_due(self, run: Path, batch: Batch) -> None:
        """Write ``groups/update_NNNNN.png``, a row for each group, and beside it what is known of the images.

        Of two of each group, how they were unmasked: :func:`maskrl.training.film.films`.

        Raises:
            TrainingError: the place cannot be written.
        """
        update = batch.update + 1
        if not self.is_main or update % self.every:
            return
        groups, size = batch.rewards.shape
        shown = min(groups, MOST_GROUPS)
        sheet, cell = _sheet(batch.images[: shown * size].cpu(), size)
        path = run / FOLDER / name(update)
        with files.whole(path.with_suffix(".png")) as unfinished:
            sheet.save(unfinished, format="PNG")
        about = [
            {
                "prompt": batch.prompts[p].text,
                "rewards": batch.rewards[p].tolist(),
                "advantages": batch.adv[p].tolist(),
                "kept": bool(batch.keep[p]),
                "films": films(batch, p),
            }
            for p in range(shown)
        ]
        record = {
            "update": update,
            "width": cell[0],
            "height": cell[1],
            "grid": self.grid,
            "groups": about,
        }
        files.write_text(path.with_suffix(".json"), json.dumps(record) + "\n")


def _sheet(images: Tensor, columns: int) -> tuple[Image.Image, tuple[int, int]]:
    """Put images side by side: Float [B, 3, H, W] in [0, 1] -> a picture of B // columns rows, and the size of one."""
    rows = images.unflatten(0, (-1, columns))
    whole = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    height, width = images.shape[2:]
    cell = tuple(max(1, side * LARGEST // max(LARGEST, height, width)) for side in (width, height))
    sheet = Image.fromarray(to_bytes(whole.clamp(0, 1)))
    return sheet.resize((cell[0] * columns, cell[1] * len(rows))), (cell[0], cell[1])
