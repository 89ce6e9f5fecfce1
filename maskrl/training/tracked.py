"""What a run shows its trackers beside its numbers: pictures, and tables of evaluations before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maskrl.evals.comparison import Line
from maskrl.runtime.metrics import MetricsLog
from maskrl.training.display import HEADINGS, cells


def show_picture(log: MetricsLog | None, name: str, path: Path, update: int) -> None:
    """Show a PNG; only the main process has a log."""
    if log is not None:
        log.trackers.picture(name, path, update)


def show_table(log: MetricsLog | None, label: str, lines: Sequence[Line], update: int) -> None:
    """Show the table of an evaluation, ``[eval.LABEL]``, before and after."""
    if log is not None:
        log.trackers.table(f"{label}/before_after", HEADINGS, [cells(line) for line in lines], update)
