"""TensorBoard: a run's numbers in groups, its pictures, its tables and its recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrl.runtime.tracker import Pixels


class Board:
    """The event files of a run."""

    def __init__(self, folder: Path) -> None:
        """Make the event files anew; what an earlier start of the run plotted in the folder is replaced."""
        from torch.utils.tensorboard.writer import SummaryWriter  # a second, and only where a recipe wants it

        for path in folder.glob("events.out.tfevents.*") if folder.is_dir() else ():
            path.unlink()
        self._writer = SummaryWriter(str(folder))

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        """Plot numbers by their tags."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, update)

    def picture(self, name: str, pixels: Pixels, update: int) -> None:
        """Show a picture."""
        self._writer.add_image(name, np.asarray(pixels), update, dataformats="HWC")

    def table(self, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], update: int) -> None:
        """Show a table, under Text."""
        lines = [headings, ["---"] * len(headings), *rows]
        self._writer.add_text(name, "\n".join(f"| {' | '.join(line)} |" for line in lines), update)

    def recipe(self, toml: str) -> None:
        """Show the run's recipe, under Text."""
        self._writer.add_text("recipe", "".join(f"    {line}\n" for line in toml.splitlines()))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
