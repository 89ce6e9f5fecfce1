"""A sweep from its first cell to its last: what is finished stays, what was begun goes on, what failed is run again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from maskrl import files
from maskrl.errors import MaskRLError, RecipeError, TrainingError
from maskrl.sweeps import jobs
from maskrl.sweeps.cells import Cell, Row, cells_of, check_cells, finish, row_of
from maskrl.sweeps.file import Sweep

FILE, ROWS = "sweep.toml", "results.jsonl"
Say = Callable[[str], None]


def rows_of(sweep: Sweep, out: Path) -> list[Row]:
    """Return the rows of all cells of a sweep as they lie there, finished or not; runs and writes nothing.

    Raises:
        RecipeError: a variant has changed since its cells were run.
        TrainingError: a row is damaged.
    """
    cells = cells_of(sweep, out)
    check_cells(cells)
    return [row_of(cell) for cell in cells]


def run_sweep(sweep: Sweep, out: Path, side_by_side: int | None, say: Say) -> list[Row]:
    """Run what is not finished yet, and keep ``results.jsonl``: a row for every cell.

    Args:
        sweep: what to run.
        out: its folder, absolute; new, or that of an earlier start.
        side_by_side: how many runs at a time; None: one for each core, on a GPU one.
        say: called with a line for a person.

    Returns:
        The rows of all cells, seed by seed; those of failed ones say why.

    Raises:
        RecipeError: the folder holds something else, or a variant has changed since its cells were run.
        TrainingError: another process runs a sweep there, or the folder cannot be written.
    """
    _check_folder(out)
    with files.owned(out):
        cells = cells_of(sweep, out)
        check_cells(cells)
        files.write_text(out / FILE, sweep.text)
        return _Running(cells, out, say).go(side_by_side or _at_a_time(sweep))


def _check_folder(out: Path) -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RecipeError("maskrl sweep starts its own processes, one for each run: leave out torchrun")
    if not (out / FILE).exists() and not files.is_empty(out):
        raise RecipeError(f"{str(out)!r} is not empty and holds no sweep; choose another --out")


def _at_a_time(sweep: Sweep) -> int:
    devices = {variant.recipe.training.device for variant in sweep.variants}
    is_on_gpu = devices != {"cpu"} and torch.cuda.is_available()
    return 1 if is_on_gpu else min(jobs.cores(), len(sweep.variants) * len(sweep.seeds))


class _Running:
    """A sweep that is run, and what has become of its cells."""

    def __init__(self, cells: list[Cell], out: Path, say: Say) -> None:
        self._cells, self._out, self._say = cells, out, say
        self._failures: dict[Path, str] = {}  # by the folders of the cells

    def go(self, side_by_side: int) -> list[Row]:
        """Run what is not finished, and return all rows."""
        left = [cell for cell in self._cells if not cell.is_finished]
        done = len(self._cells) - len(left)
        finished = f"{done} finished, " if done else ""
        self._say(f"{len(self._cells)} runs: {finished}{len(left)} to go, {side_by_side} at a time")
        self._write()
        try:
            jobs.run(left, side_by_side, self._begin, self._done)
        except BaseException:
            self._say("stopped; the same command goes on")
            raise
        return self._rows()

    def _begin(self, cell: Cell) -> None:
        files.write_text(cell.recipe_file, cell.recipe.to_toml())
        self._say(f"{cell.name}: {'goes on' if cell.is_begun else 'begins'} (log: {cell.log})")

    def _done(self, cell: Cell, failure: str | None) -> None:
        try:
            if failure is not None:
                raise TrainingError(failure)
            self._say(f"{cell.name}: finished{_headlines(finish(cell))}")
        except MaskRLError as error:
            self._failures[cell.folder] = str(error)
            self._say(f"{cell.name}: failed: {error}")
        self._write()

    def _rows(self) -> list[Row]:
        return [row_of(cell, self._failures.get(cell.folder)) for cell in self._cells]

    def _write(self) -> None:
        files.write_text(self._out / ROWS, "".join(json.dumps(row) + "\n" for row in self._rows()))


def _headlines(row: Row) -> str:
    """Say the first number of each evaluation, before and after."""
    return "".join(
        f", {label} {_first(row['before'][label]):.3f} to {_first(after):.3f}"
        for label, after in row["after"].items()
    )


def _first(numbers: dict[str, dict[str, float]]) -> float:
    return next(iter(numbers.values()))["mean"]
