"""What stands before the first update: what the run reads and where it runs, its newest checkpoint, its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrl.errors import TrainingError
from maskrl.eval_section import RESERVED
from maskrl.evals.ranks import run_on_main
from maskrl.evals.results import RESULT, Report, read_report, write_report
from maskrl.recipe import Recipe
from maskrl.runtime import checkpoint as checkpoints
from maskrl.runtime import record
from maskrl.runtime.folder import check_saved
from maskrl.runtime.metrics import METRICS, MetricsLog, last_update, read_rows, rows_of
from maskrl.runtime.placement import Placement
from maskrl.training.evaluating import row_of
from maskrl.training.setup import Setup
from maskrl.training.state import Progress


def contents(recipe: Recipe, setup: Setup) -> dict[str, Any]:
    """Say what the run reads."""
    return record.contents(recipe, setup.prompts) | {
        f"eval.{one.label}": one.contents() for one in setup.evaluations
    }


def about(recipe: Recipe, setup: Setup) -> dict[str, Any]:
    """Say where the run runs."""
    versions = record.versions([one.component for one in record.components(recipe)])
    return {"versions": versions, **record.surroundings(setup.placement.world_size)}


def newest(folder: Path, recipe: Recipe) -> checkpoints.Checkpoint | None:
    """Load the newest checkpoint; there may be none yet."""
    saved = checkpoints.listed(folder / "checkpoints")
    if saved:
        return checkpoints.load(saved[-1])
    check_saved(folder, recipe.checkpoint.every, last_update(folder))
    return None


def open_log(
    recipe: Recipe, run: Path, progress: Progress, placement: Placement
) -> AbstractContextManager[MetricsLog | None]:
    """Open the metrics, on the process that writes them."""
    kept: list[bytes] = []
    run_on_main(placement, lambda: kept.extend(rows_of(run, progress.rows, progress.rows_sha256)))
    if not placement.is_main:
        return nullcontext()
    log = MetricsLog(run, kept, recipe.tracking)
    progress.rows, progress.rows_sha256 = log.rows, log.sha256
    log.trackers.recipe(recipe.to_toml())
    return log


def results_folder(run: Path, label: str, when: str) -> Path:
    """Return where a run keeps an evaluation; one of before evaluations had labels lies a folder higher."""
    folder, old = run / "eval" / label / when, run / "eval" / when
    is_old = label == "geneval" and not folder.exists() and (old / RESULT).exists()
    return old if is_old else folder


def write_results(run: Path, label: str, when: str, report: Report, **provenance: Any) -> None:
    """Write what an evaluation of a run has found, and of which recipe and update.

    Raises:
        TrainingError: the place cannot be written.
    """
    result = replace(report.result, provenance={**report.result.provenance, **provenance})
    write_report(replace(report, result=result), results_folder(run, label, when))


def read_before(run: Path, label: str) -> Report:
    """Read what an earlier start has measured of the base; the row that it wrote then must say the same.

    Raises:
        TrainingError: the results are damaged, or say something else; the message says what to do.
    """
    folder = results_folder(run, label, "before")
    try:
        report = read_report(folder)
        noted = next((row for row in _rows(run) if _is_before(row, label)), {})
        for name, now in row_of(label, "before", report).items():
            was = noted.get(name, now)
            if was != now and not (isinstance(now, float) and math.isclose(now, was, abs_tol=1e-9)):
                raise TrainingError(f"the results in {str(folder)!r} say {now}, metrics.jsonl {was}")
    except TrainingError as error:
        raise TrainingError(f"{error}; delete that folder, and the base is evaluated again") from error
    return report


def _is_before(row: Mapping[str, Any], label: str) -> bool:
    """Tell whether a row is that of an evaluation before training: its headline is the first of its numbers."""
    return row.get("when") == "before" and next(key for key in row if key not in RESERVED) == label


def _rows(run: Path) -> list[dict[str, Any]]:
    return list(read_rows(run)) if (run / METRICS).exists() else []
