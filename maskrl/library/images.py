"""Images that were painted: to look at, to save, to score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from torch import Tensor

from maskrl.pixels import to_bytes
from maskrl.training.sheet import draw_sheet, save_sheet

COLUMNS = 4


@dataclass(frozen=True)
class Images:
    """B images and what they were painted from; a notebook shows them as one picture.

    Attributes:
        pixels: Float [B, 3, H, W] in [0, 1], on the CPU.
        prompts: of each.
    """

    pixels: Tensor
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def __iter__(self) -> Iterator[Image.Image]:
        return (Image.fromarray(array) for array in to_bytes(self.pixels))

    def save(self, path: str | Path) -> Path:
        """Write all of them as one PNG, and return its path.

        Raises:
            TrainingError: the place cannot be written.
        """
        save_sheet(Path(path), *self._sheet())
        return Path(path)

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        draw_sheet(*self._sheet()).save(buffer, format="PNG")
        return buffer.getvalue()

    def _sheet(self) -> tuple[Sequence[str], Sequence[Tensor]]:
        """Return captions and rows: a column for every prompt, or rows of ``COLUMNS`` images of one prompt."""
        different = list(dict.fromkeys(self.prompts))
        number = len(self) // len(different)
        if len(different) == 1 or any(self.prompts.count(prompt) != number for prompt in different):
            columns = min(len(self), COLUMNS)
            caption = different[0] if len(different) == 1 else ""
            return [caption, *[""] * (columns - 1)], self.pixels.split(columns)
        places = [[i for i, prompt in enumerate(self.prompts) if prompt == one] for one in different]
        return different, [self.pixels[[column[row] for column in places]] for row in range(number)]
