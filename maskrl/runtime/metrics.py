"""Where a run's numbers go: ``metrics.jsonl``, one row per event, and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from maskrl.errors import TrainingError
from maskrl.runtime.board import Board

WALL_CLOCK = ("seconds_", "time")

Row = Mapping[str, str | int | float]


class MetricsLog:
    """Appends rows to a run's metrics; every row is on disk when :meth:`write` returns.

    ``rows`` is how many the file holds. A row has ``kind`` ("update" or "eval"), ``update`` (how many
    updates the run had made), and numbers; see :func:`is_wall_clock` for those that differ between runs.
    ``board`` is TensorBoard, if it is wanted; it has every row too.
    """

    def __init__(self, run: Path, rows: int, update: int, tensorboard: bool) -> None:
        """Open the log of a run.

        Args:
            run: the run's folder.
            rows: how many rows to keep; what a killed run wrote behind them is dropped.
            update: the update that the run continues from.
            tensorboard: whether to write event files too.

        Raises:
            TrainingError: the folder is not writable.
        """
        path = run / "metrics.jsonl"
        self.rows = 0
        try:
            kept = path.read_bytes().splitlines(keepends=True)[:rows] if path.exists() else []
            unfinished = path.with_name(path.name + ".unfinished")
            unfinished.write_bytes(b"".join(kept))
            unfinished.replace(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"cannot write {str(path)!r}: {error.strerror}") from error
        self.rows = len(kept)
        self.board = Board(run / "tensorboard", update) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self.board is not None:
            self.board.close()

    def write(self, row: Row) -> None:
        """Append one row. NaN, a standard error that does not exist, becomes null.

        Raises:
            TrainingError: the disk is full.
        """
        numbers = {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()}
        try:
            self._file.write(json.dumps(numbers, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"cannot write {self._file.name!r}: {error.strerror}") from error
        self.rows += 1
        if self.board is not None:
            self.board.plot(row)


def read_rows(run: Path) -> Iterator[dict[str, Any]]:
    """Yield a run's rows, in order; a row that a kill cut short is left out."""
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def is_wall_clock(key: str) -> bool:
    """Tell whether a metric may differ between two runs of the same recipe."""
    return key.startswith(WALL_CLOCK)
