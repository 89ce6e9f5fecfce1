"""The trackers of a run, and what becomes of one that fails: a line, and no more is tried. None ever stops a run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskrl.errors import Terminated
from maskrl.runtime.board import Board
from maskrl.runtime.service import Service
from maskrl.runtime.tracker import Tracker, tag
from maskrl.sections import TENSORBOARD, TrackingConfig
from maskrl.shared import put_back, shared

LONGEST = 300  # letters of what a tracker says of its end


class Trackers:
    """All that a recipe names; whatever one of them raises, the others have everything."""

    def __init__(self, config: TrackingConfig, run: Path, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """Open them.

        Args:
            config: which, and how.
            run: the run's folder.
            rows: that the run has already; they are plotted again, so that every number is there once.
        """
        self._open: dict[str, Tracker] = {}
        for name in dict.fromkeys(config.trackers):
            self._try(name, partial(self._open_one, name, run, config))
        if self._open:
            for row in rows:
                self.plot(row)

    def plot(self, row: Mapping[str, Any]) -> None:
        """Plot the numbers of a row of metrics at its update."""
        numbers = {k: v for k, v in row.items() if k not in ("kind", "update") and isinstance(v, int | float)}
        headline = next(iter(numbers), None) if row.get("kind") == "eval" else None  # it comes first
        tagged = {tag(name, headline): value for name, value in numbers.items()}
        self._all(lambda to: to.log(tagged, int(row["update"])))

    def picture(self, name: str, path: Path, update: int) -> None:
        """Show a PNG of the run."""
        if not self._open:
            return
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._all(lambda to: to.picture(name, pixels, update))

    def table(self, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], update: int) -> None:
        """Show a table; every row has a text for each heading."""
        self._all(lambda to: to.table(name, headings, rows, update))

    def recipe(self, toml: str) -> None:
        """Show the run's recipe, with every default."""
        self._all(lambda to: to.recipe(toml))

    def close(self) -> None:
        """Write what is left."""
        self._all(lambda to: to.close())
        self._open.clear()

    def _open_one(self, name: str, run: Path, config: TrackingConfig) -> None:
        if name == TENSORBOARD:
            self._open[name] = Board(run / TENSORBOARD)
        else:
            self._open[name] = Service(name, run, config.project, config.options.get(name, {}))

    def _all(self, action: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self._open.items()):
            self._try(name, partial(action, tracker))

    def _try(self, name: str, action: Callable[[], object]) -> None:
        """Let a tracker do something: what it prints goes to stderr, what it changes for all code is put back."""
        before = shared()
        try:
            with redirect_stdout(sys.stderr):
                action()
        except (Exception, SystemExit) as error:  # other people's code; no run ends with it
            if isinstance(error, Terminated):
                raise
            self._open.pop(name, None)
            warnings.warn(f"the tracker {name!r} is given up: {_reason(error)}", stacklevel=4)
        finally:
            put_back(before)


def _reason(error: BaseException) -> str:
    """Say in one line why it has failed."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
