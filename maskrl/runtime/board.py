"""TensorBoard: a run's numbers in groups, its pictures and its recipe. It never stops a run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from PIL import Image

T = TypeVar("T")

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

# The group of a metric: that of the first of these that its name begins with. docs/metrics.md has the same order.
GROUPS = {
    "reward_": "reward",
    "held_out_": "reward",
    "kept_": "groups",
    "resample_": "groups",
    "filter_": "groups",
    "skipped": "groups",
    "diversity_": "images",
    "entropy": "images",
    "floored_": "images",
    "seconds_": "seconds",
}
OTHERS = "update"  # loss, ratio, clip fraction, KL, gradient, learning rate


def tag(metric: str, evaluation: str | None = None) -> str:
    """Return what TensorBoard calls a metric: ``reward/reward_mean``; one of an evaluation stands in its group."""
    if evaluation is not None:
        return f"{evaluation}/{metric}"
    group = next((group for prefix, group in GROUPS.items() if metric.startswith(prefix)), OTHERS)
    return f"{group}/{metric}"


class Board:
    """The event files of a run; what cannot be written is said once, and then no more is tried."""

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """Make the event files anew.

        Args:
            folder: for them; what an earlier start of the run plotted there is replaced.
            rows: that the run has already; they are plotted again, so that nothing is there twice.
        """
        from torch.utils.tensorboard.writer import SummaryWriter  # a second, and only where a recipe wants it

        self._folder, self._writer = folder, None
        self._try(lambda: _clear(folder))
        self._writer = self._try(lambda: SummaryWriter(str(folder)))
        for row in rows:
            self.plot(row)

    def plot(self, row: Mapping[str, str | int | float]) -> None:
        """Plot the numbers of a row of metrics at its update."""
        numbers = {k: v for k, v in row.items() if k not in ("kind", "update") and isinstance(v, int | float)}

        evaluated = (
            next(iter(numbers), None) if row.get("kind") == "eval" else None
        )  # its headline comes first

        def add(to: SummaryWriter) -> None:
            for name, value in numbers.items():
                to.add_scalar(tag(name, evaluated), value, int(row["update"]))

        self._write(add)

    def picture(self, name: str, path: Path, update: int) -> None:
        """Show a PNG of the run."""

        def show(to: SummaryWriter) -> None:
            with Image.open(path) as image:
                to.add_image(name, np.asarray(image.convert("RGB")), update, dataformats="HWC")

        self._write(show)

    def recipe(self, toml: str) -> None:
        """Show the run's recipe, with every default."""
        self._write(lambda to: to.add_text("recipe", "".join(f"    {line}\n" for line in toml.splitlines())))

    def close(self) -> None:
        """Write what is left."""
        self._write(lambda to: to.close())

    def _write(self, action: Callable[[SummaryWriter], object]) -> None:
        writer = self._writer
        if writer is not None:
            self._try(lambda: action(writer))

    def _try(self, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except OSError as error:
            self._writer = None
            reason = error.strerror or error
            warnings.warn(f"TensorBoard in {str(self._folder)!r} is given up: {reason}", stacklevel=3)
            return None


def _clear(folder: Path) -> None:
    for path in folder.glob("events.out.tfevents.*") if folder.is_dir() else ():
        path.unlink()
