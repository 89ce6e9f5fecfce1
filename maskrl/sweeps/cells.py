"""One cell of a sweep, a variant with a seed: where it lies, whether it is what it was, what it came to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.results import Report, read_report
from maskrl.interfaces import Number
from maskrl.recipe import Recipe
from maskrl.runtime import record
from maskrl.runtime.folder import RECIPE, difference
from maskrl.runtime.metrics import read_rows
from maskrl.runtime.prompts import training_prompts
from maskrl.runtime.record_file import read_record
from maskrl.sweeps.file import Sweep, Variant
from maskrl.training.best_guidance import Best, best_of
from maskrl.training.evaluating import contents_of, prompts_of, taken_of
from maskrl.training.opening import results_folder

Row = Mapping[str, Any]
FINISHED, FAILED, OPEN = "finished", "failed", "open"


@dataclass(frozen=True)
class Cell:
    """A variant with a seed; ``folder`` is its run's. Its recipe, log and row lie beside it, under its name."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.variant.name}, seed {self.seed}"

    @property
    def recipe(self) -> Recipe:
        """The variant's, with its seed."""
        return self.variant.recipe.model_copy(update={"seed": self.seed})

    @property
    def recipe_file(self) -> Path:
        """What the run is made from."""
        return self.folder.with_name(f"{self.folder.name}.toml")

    @property
    def log(self) -> Path:
        """What the run says."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def result(self) -> Path:
        """The row of a finished cell; one that is not has none."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def is_begun(self) -> bool:
        """Whether there is a run, to go on with or finished."""
        return (self.folder / RECIPE).exists()

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.is_begun and self.result.exists()


def cells_of(sweep: Sweep, out: Path) -> list[Cell]:
    """Return all cells, seed by seed: what is compared comes early."""
    return [
        Cell(variant, seed, out / variant.name / f"seed_{seed}")
        for seed in sweep.seeds
        for variant in sweep.variants
    ]


def check_cells(cells: list[Cell]) -> None:
    """Refuse to go on with cells of variants that have changed, by their settings or by what they read.

    Raises:
        RecipeError: one line for each such variant, which says what to do.
    """
    said: dict[str, str] = {}
    for cell in cells:
        name, folder = cell.variant.name, str(cell.folder.parent)
        if name in said or not cell.is_begun:
            continue
        if changed := difference(cell.folder, cell.recipe, contents(cell.recipe)):
            said[name] = (
                f"variant {name!r} is another than the one whose cells are in {folder!r}: {changed}; put back what"
                " was there, give the variant another name, or delete that folder and it is run anew"
            )
    if said:
        raise RecipeError("\n".join(said.values()))


def contents(recipe: Recipe) -> dict[str, Any]:
    """Say what a run of a recipe would read, as ``run.json`` does; no network is built but an evaluation's."""
    evaluations = {
        f"eval.{label}": contents_of(section.build(taken_of(recipe)), prompts_of(label, section))
        for label, section in recipe.eval.items()
    }
    return {**record.contents(recipe, training_prompts(recipe.prompts)), **evaluations}


def finish(cell: Cell) -> Row:
    """Write the row of a cell whose run has come to its end, and return it.

    Raises:
        TrainingError: something of the run is damaged, or the row cannot be written.
    """
    reports = {when: _reports(cell, when) for when in ("before", "after")}
    kinds = {label: section.evaluation.component for label, section in cell.recipe.eval.items()}
    rows = [row for row in read_rows(cell.folder) if row["kind"] == "update"]
    seconds = [row["seconds_total"] for row in rows]
    start = read_record(cell.folder)["starts"][-1]
    row = {
        **_about(cell, FINISHED),
        "updates": len(rows),
        "seconds_per_update": median(seconds) if seconds else None,
        **{when: {label: _numbers(one.numbers) for label, one in by.items()} for when, by in reports.items()},
        "best_guidance": [_best(best) for best in best_of(kinds, reports["before"], reports["after"])],
        "commit": start.get("commit"),
        "versions": start.get("versions"),
        "machine": {
            key: value for key, value in start.items() if key not in ("commit", "versions", "changed")
        },
        "overrides": list(cell.variant.overrides),
        "recipe": cell.recipe.model_dump(mode="json"),
    }
    files.write_text(cell.result, json.dumps(row) + "\n")
    return row


def _about(cell: Cell, status: str) -> dict[str, Any]:
    about = {"variant": cell.variant.name, "seed": cell.seed, "status": status}
    return {**about, "recipe_digest": cell.recipe.digest()}


def _reports(cell: Cell, when: str) -> dict[str, Report]:
    return {label: read_report(results_folder(cell.folder, label, when)) for label in cell.recipe.eval}


def _numbers(numbers: Mapping[str, Number]) -> dict[str, dict[str, float | None]]:
    """Write numbers as JSON has them, in their order."""
    return {
        name: {"mean": number.mean, "se": None if math.isnan(number.se) else number.se}
        for name, number in numbers.items()
    }


def _best(best: Best) -> dict[str, Any]:
    numbers = {"before": best.before, "after": best.after, "difference": best.difference}
    guidance = {"before": best.guidance_before, "after": best.guidance_after}
    return {"section": best.section, "guidance": guidance, **_numbers(numbers)}


def row_of(cell: Cell, failure: str | None = None) -> Row:
    """Return the row of a cell, finished or not, or failed: ``failure`` says why.

    Raises:
        TrainingError: the row is damaged.
    """
    if failure is not None:
        return {**_about(cell, FAILED), "error": failure, "log": str(cell.log)}
    if not cell.is_finished:
        return _about(cell, OPEN)
    try:
        row: dict[str, Any] = json.loads(cell.result.read_text(encoding="utf-8"))
        row["variant"], row["before"], row["after"], row["seconds_per_update"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{str(cell.result)!r} is damaged ({error!r}); delete it, and it is read from its run again"
        ) from error
    return row


def failure(log: Path, start: int, code: int) -> str:
    """Return the line in which a process said why it ended: of what its log holds from byte ``start`` on."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    ours = [line.removeprefix("maskrl: ") for line in lines if line.startswith("maskrl: ")]
    why = "; ".join(_of_end(ours)) or (lines[-1] if lines else "it said nothing")
    return f"{why} (exit code {code})"


def _of_end(lines: list[str]) -> Iterator[str]:
    """Leave out what a run says of a signal; several mistakes have a line each."""
    return (line for line in lines if not line.startswith("stopping after this update"))
