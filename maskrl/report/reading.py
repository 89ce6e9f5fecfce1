"""What a run's folder holds for a reader: nothing is written, no lock is taken, and what is damaged is told.

A run may go on while it is read, and may have died in the middle of a line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from maskrl.component import Needs
from maskrl.errors import MaskRLError, RecipeError
from maskrl.evals.results import RESULT, Report, read_report
from maskrl.recipe import Recipe, read_recipe
from maskrl.runtime.folder import RECIPE, flat
from maskrl.runtime.metrics import METRICS, read_rows
from maskrl.runtime.record_file import read_record

Row = Mapping[str, Any]
CELL = re.compile(r"seed_\d+")  # a run of a sweep, whose variant is the folder above


@dataclass(frozen=True)
class RunFolder:
    """What was read of a run.

    Attributes:
        name: short, and different for every run of a page.
        folder: where it lies.
        recipe: every setting by its full key; None where it cannot be read.
        updates: the rows of its updates, in order.
        evals: the rows of its evaluations, in order.
        starts: what it noted at every start.
        before, after: its evaluations by the labels of their sections.
        troubles: a line for everything that could not be read.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any] | None
    updates: Sequence[Row]
    evals: Sequence[Row]
    starts: Sequence[Row]
    before: Mapping[str, Report]
    after: Mapping[str, Report]
    troubles: Sequence[str]

    def setting(self, key: str, default: Any = None) -> Any:
        """Return a setting of the recipe."""
        return default if self.recipe is None else self.recipe.get(key, default)

    def numbers(self, metric: str) -> list[tuple[int, float]]:
        """Return (update, value) of every update that has the metric; NaN where it was no number."""
        return [(row["update"], as_number(row[metric])) for row in self.updates if metric in row]

    def finite(self, metric: str) -> list[tuple[int, float]]:
        """Return those that are numbers."""
        return [(update, value) for update, value in self.numbers(metric) if math.isfinite(value)]


def as_number(value: Any) -> float:
    """Return what a row says as a number; what is none (NaN is written as null) is NaN."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read runs, each under a name of its own.

    Raises:
        RecipeError: a folder holds no run.
    """
    return [read_run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]


def read_run(folder: Path, name: str) -> RunFolder:
    """Read a run.

    Raises:
        RecipeError: the folder holds none.
    """
    if not (folder / RECIPE).is_file() and not (folder / METRICS).is_file():
        raise RecipeError(
            f"{str(folder)!r} holds no run: neither {RECIPE} nor {METRICS}; give the folder that maskrl train wrote"
        )
    troubles: list[str] = []
    rows = _read_rows(folder, troubles)
    recipe = _tell(troubles, lambda: flat(recipe_of(folder)) if (folder / RECIPE).is_file() else None, None)
    starts = _tell(troubles, lambda: read_record(folder)["starts"], [])
    before, after = (_read_reports(folder, when, recipe or {}, troubles) for when in ("before", "after"))
    return RunFolder(
        name=name,
        folder=folder,
        recipe=recipe,
        updates=[row for row in rows if row.get("kind") == "update"],
        evals=[row for row in rows if row.get("kind") == "eval"],
        starts=starts,
        before=before,
        after=after,
        troubles=troubles,
    )


def recipe_of(folder: Path) -> Recipe:
    """Read a run's recipe without its components: they need not be installed here.

    Raises:
        RecipeError: it is damaged.
    """
    return read_recipe(folder / RECIPE, needs=Needs((), ()))


def names(folders: Sequence[Path]) -> list[str]:
    """Name folders by the ends of their paths, as long as they must be to differ; one given twice gets a number."""
    paths = [folder.resolve().parts for folder in folders]
    least = 2 if any(CELL.fullmatch(path[-1]) for path in paths) else 1
    deepest = max(len(path) for path in paths)
    length = next(
        n for n in range(least, deepest + 1) if len({path[-n:] for path in paths}) == len(set(paths))
    )
    short = ["/".join(path[-length:]) for path in paths]
    return [f"{one} ({short[:i].count(one) + 1})" if one in short[:i] else one for i, one in enumerate(short)]


def _read_rows(folder: Path, troubles: list[str]) -> list[Row]:
    """Read the metrics up to where they are damaged; a last line that is half written is none."""
    rows: list[Row] = []
    try:
        for row in read_rows(folder):
            if not isinstance(row, dict) or not isinstance(row.get("update"), int):
                raise ValueError("a row without its update")
            rows.append(row)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        troubles.append(
            f"{METRICS} is damaged after row {len(rows)} ({error}): what comes behind is not shown"
        )
    return rows


def _read_reports(
    folder: Path, when: str, recipe: Mapping[str, Any], troubles: list[str]
) -> dict[str, Report]:
    """Read the evaluations of one time, in the recipe's order; of before they had labels they lie a folder higher."""
    found = {path.parent.parent.name: path.parent for path in (folder / "eval").glob(f"*/{when}/{RESULT}")}
    order = list(dict.fromkeys(key.split(".")[1] for key in recipe if key.startswith("eval.")))
    places = {label: found[label] for label in [*order, *sorted(set(found) - set(order))] if label in found}
    if not places and (folder / "eval" / when / RESULT).is_file():
        places = {"geneval": folder / "eval" / when}
    reports = {label: _tell(troubles, partial(read_report, at), None) for label, at in places.items()}
    return {label: report for label, report in reports.items() if report is not None}


def _tell(troubles: list[str], read: Callable[[], Any], otherwise: Any) -> Any:
    """Read something, or note why it cannot be read."""
    try:
        return read()
    except MaskRLError as error:
        troubles.append(str(error).splitlines()[0])
        return otherwise
