"""Where a run's numbers go: ``metrics.jsonl``, one row per event, and the run's trackers."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.runtime.trackers import Trackers
from maskrl.sections import TrackingConfig

METRICS = "metrics.jsonl"
WALL_CLOCK = ("seconds_", "time")

MetricsRow = Mapping[str, str | int | float]


class MetricsLog:
    """Appends rows to a run's metrics; every row is on disk when :meth:`write` returns.

    ``rows`` is how many the file holds, ``sha256`` is of them. A row has ``kind`` ("update" or "eval"), ``update`` (how
    many updates the run had made), and numbers; see :func:`is_wall_clock` for those that differ between runs.
    ``trackers`` have every row too.
    """

    def __init__(self, run: Path, kept: Sequence[bytes], tracking: TrackingConfig) -> None:
        """Open the log of a run.

        Args:
            run: the run's folder.
            kept: the rows that stay, as :func:`rows_of` returns them; what a killed run wrote behind them is dropped.
            tracking: which trackers have the rows too.

        Raises:
            TrainingError: the folder is not writable.
        """
        path = run / METRICS
        with files.whole(path) as unfinished:
            unfinished.write_bytes(b"".join(kept))
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise TrainingError(f"cannot write {str(path)!r}: {error.strerror}") from error
        self.rows, self._digest = len(kept), hashlib.sha256(b"".join(kept))
        self.trackers = Trackers(tracking, run, map(json.loads, kept))

    @property
    def sha256(self) -> str:
        """Of all rows."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):  # a full disk has been said, or is of no row
            self._file.close()
        self.trackers.close()

    def write(self, row: MetricsRow) -> None:
        """Append one row. NaN, a standard error that does not exist, becomes null.

        Raises:
            TrainingError: the disk is full.
        """
        numbers = {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in row.items()}
        line = (json.dumps(numbers, allow_nan=False) + "\n").encode()
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise TrainingError(f"cannot write {str(self._file.name)!r}: {error.strerror}") from error
        self.rows += 1
        self._digest.update(line)
        self.trackers.plot(row)


def rows_of(run: Path, rows: int, sha256: str | None) -> list[bytes]:
    """Return the rows that a checkpoint counts, of the file as it lies there.

    Args:
        run: the run's folder.
        rows: how many there were.
        sha256: of them; None where a checkpoint does not say.

    Returns:
        The rows, or none where there is no such file any more.

    Raises:
        TrainingError: there are fewer, or they are not what was written; the message says what to do.
    """
    path = run / METRICS
    try:
        found = path.read_bytes().splitlines(keepends=True)[:rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TrainingError(f"cannot read {str(path)!r}: {error.strerror}") from error
    whole = [row for row in found if row.endswith(b"\n")]
    if len(whole) < rows:
        raise TrainingError(
            _not_whole(path, f"holds {len(whole)} of the {rows} rows that the checkpoint counts")
        )
    if sha256 is not None and hashlib.sha256(b"".join(whole)).hexdigest() != sha256:
        raise TrainingError(_not_whole(path, f"does not hold the {rows} rows that the checkpoint counts"))
    return whole


def _not_whole(path: Path, why: str) -> str:
    return f"{str(path)!r} {why}; restore it, or delete it: then the run goes on without the rows before"


def last_update(run: Path) -> int:
    """Return the update of the newest row that can be read; 0 if there is none."""
    try:
        lines = (run / METRICS).read_bytes().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["update"])
        except (ValueError, KeyError, TypeError):
            continue
    return 0


def read_rows(run: Path) -> Iterator[dict[str, Any]]:
    """Yield a run's rows, in order; a row that a kill cut short is left out."""
    for line in (run / METRICS).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def is_wall_clock(key: str) -> bool:
    """Tell whether a metric may differ between two runs of the same recipe."""
    return key.startswith(WALL_CLOCK)
