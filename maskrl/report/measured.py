"""A run's evaluations as tables: before and after, each side at its best guidance, and runs against the first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskrl.errors import RecipeError
from maskrl.evals.comparison import Line, class_of, compare
from maskrl.evals.results import Report
from maskrl.evaluations.numbers import written
from maskrl.interfaces import Evaluation, Number
from maskrl.report.reading import RunFolder
from maskrl.report.verdicts import CLEAR, FINE, LOOK, NOTE, Verdict
from maskrl.training.best_guidance import GUIDANCE, Best, best_of
from maskrl.training.display import shown, titled


@dataclass(frozen=True)
class Cell:
    """A line of a table: numbers as the command line writes them, and where the difference stands in a small picture.

    ``low``, ``at`` and ``high`` are per cent of the picture's width: the difference and two standard errors to each
    side; None where it has none. ``change`` is "better", "worse" or "" where it may be chance.
    """

    name: str
    before: str
    after: str
    difference: str
    low: float | None
    at: float
    high: float | None
    change: str


@dataclass(frozen=True)
class Table:
    """An evaluation before and after. ``reach`` is the difference at the picture's right edge; the middle is 0."""

    label: str
    title: str
    guidance: str
    images: int
    cells: Sequence[Cell]
    reach: float


@dataclass(frozen=True)
class Headline:
    """What an evaluation came to, at the best guidance of each side where there were several."""

    title: str
    before: str
    after: str
    difference: str
    change: str
    how: str


@dataclass(frozen=True)
class AgainstLine:
    """A run beside the first: what it came to, the difference, or why there is none."""

    name: str
    after: str
    difference: str
    why: str


@dataclass(frozen=True)
class Against:
    """One evaluation of several runs, the first of which the others are compared with."""

    title: str
    lines: Sequence[AgainstLine]


def tables(run: RunFolder) -> list[Table]:
    """Return a table for every evaluation that was made before and after."""
    return [
        _table(label, kind, run.before[label], run.after[label])
        for label, kind in _kinds(run).items()
    ]  # fmt: skip


def only_before(run: RunFolder) -> list[tuple[str, str]]:
    """Return the headlines of what was measured of the base alone, as while a run goes on."""
    labels = [label for label in run.before if label not in run.after]
    return [(titled(label, run.before[label]), written(run.before[label].headline)) for label in labels]


def headlines(run: RunFolder) -> list[Headline]:
    """Return what a reader wants to know first: one for each evaluation, whatever the number of its guidances."""
    kinds = _kinds(run)
    best = best_of(kinds, run.before, run.after) if kinds else []
    found = {one.section: _at_best(one, kinds[one.section]) for one in best}
    taken = {one.label for one in best}
    for label, kind in kinds.items():
        if run.before[label].result.label not in taken:
            found[label] = _as_it_is(label, kind, run.before[label], run.after[label])
    return [found[label] for label in kinds if label in found]


def judged(run: RunFolder) -> list[Verdict]:
    """Say in words whether the evaluations moved."""
    said = []
    for line in headlines(run):
        numbers = f"{line.before} → {line.after}, {line.difference}"
        words = {"better": "is better", "worse": "is worse"}.get(
            line.change, "moved no more than chance allows"
        )
        weight = {"better": FINE, "worse": LOOK}.get(line.change, NOTE)
        said.append(Verdict(weight, f"{line.title} {words}: {numbers}."))
    return [*said, *_fallen(run)]


def _fallen(run: RunFolder) -> Iterator[Verdict]:
    """Name what has become worse in a table whose headline has not."""
    for table in tables(run):
        headline, *others = table.cells
        worse = [f"{cell.name} ({cell.difference})" for cell in others if cell.change == "worse"]
        if worse and headline.change != "worse":
            where = table.title + (f", {table.guidance}" if table.guidance else "")
            yield Verdict(LOOK, f"Worse beyond two standard errors in {where}: {', '.join(worse)}.")


def against_first(runs: Sequence[RunFolder]) -> list[Against]:
    """Return, evaluation by evaluation, what each run came to and its difference from the first that has it.

    First where each is at its best guidance, if there are several, then at equal ones.
    """
    best = [_best_after(run) for run in runs]
    found = [
        _against(
            f"{label}, each run at its best guidance", runs, [one.get(label) for one in best], (GUIDANCE,)
        )
        for label in dict.fromkeys(label for one in best for label in one)
    ]
    for section in dict.fromkeys(section for run in runs for section in run.after):
        reports = [run.after.get(section) for run in runs]
        first = next(report for report in reports if report is not None)
        title = titled(section, first) + _guidance(first, ", guidance {}")
        found.append(_against(title, runs, reports, ()))
    return [one for one in found if len(one.lines) > 1]


def _best_after(run: RunFolder) -> dict[str, Report]:
    """Return the results of a trained model at its best guidance, by what they may be called."""
    kinds = _kinds(run)
    return {
        best.label: next(
            run.after[section]
            for section in kinds
            if run.after[section].result.label == best.label
            and run.after[section].result.settings[GUIDANCE] == best.guidance_after
        )
        for best in best_of(kinds, run.before, run.after)
    }


def _against(
    title: str, runs: Sequence[RunFolder], reports: Sequence[Report | None], apart_from: tuple[str, ...]
) -> Against:
    having = [(run.name, report) for run, report in zip(runs, reports, strict=True) if report is not None]
    (name, base), *others = having
    lines = [AgainstLine(name, written(base.headline), "", "the others are compared with it")]
    for name, report in others:
        try:
            kind = class_of(report.result) or Evaluation
            difference = written(compare(kind, base, report, apart_from)[0].difference, sign=True)
            lines.append(AgainstLine(name, written(report.headline), difference, ""))
        except RecipeError as error:
            lines.append(AgainstLine(name, written(report.headline), "", str(error)))
    return Against(title, lines)


def _kinds(run: RunFolder) -> dict[str, type[Evaluation]]:
    """Return the classes of what was measured before and after alike; one that is not installed pairs nothing."""
    return {
        label: class_of(before.result) or Evaluation
        for label, before in run.before.items()
        if label in run.after and before.result.settings == run.after[label].result.settings
    }


def _table(label: str, kind: type[Evaluation], before: Report, after: Report) -> Table:
    lines = shown(compare(kind, before, after))
    ends = [abs(line.difference.mean) + CLEAR * _error(line.difference) for line in lines]
    reach = max([*ends, 1e-9])
    return Table(
        label=label,
        title=titled(label, before),
        guidance=_guidance(before, "guidance {}"),
        images=before.result.images,
        cells=[_cell(kind, line, reach) for line in lines],
        reach=reach,
    )


def _cell(kind: type[Evaluation], line: Line, reach: float) -> Cell:
    mean, error = line.difference.mean, CLEAR * _error(line.difference)
    has_error = not math.isnan(line.difference.se)
    return Cell(
        line.name,
        *_written(line.first, line.second, line.difference),
        _percent(mean - error, reach) if has_error else None,
        _percent(mean, reach),
        _percent(mean + error, reach) if has_error else None,
        _change(kind, line),
    )


def _percent(value: float, reach: float) -> float:
    return round(50 + 48 * value / reach, 2)


def _error(number: Number) -> float:
    return 0.0 if math.isnan(number.se) else number.se


def _written(first: Number, second: Number, difference: Number) -> tuple[str, str, str]:
    return written(first), written(second), written(difference, sign=True)


def _change(kind: type[Evaluation], line: Line) -> str:
    sign = 1 if kind.larger_is_better else -1
    if not abs(line.difference.mean) > CLEAR * line.difference.se:
        return ""
    return "better" if sign * line.difference.mean > 0 else "worse"


def _at_best(best: Best, kind: type[Evaluation]) -> Headline:
    line = Line(best.label, best.before, best.after, best.difference)
    how = f"each side at its best guidance: {best.guidance_before:g} before, {best.guidance_after:g} after"
    return _headline(best.label, kind, line, how)


def _as_it_is(label: str, kind: type[Evaluation], before: Report, after: Report) -> Headline:
    how = f"{before.result.images} images{_guidance(before, ', guidance {}')}"
    return _headline(titled(label, before), kind, compare(kind, before, after)[0], how)


def _headline(title: str, kind: type[Evaluation], line: Line, how: str) -> Headline:
    numbers = _written(line.first, line.second, line.difference)
    return Headline(title, *numbers, _change(kind, line), how)


def _guidance(report: Report, form: str) -> str:
    value = report.result.settings.get(GUIDANCE)
    return form.format(f"{value:g}") if isinstance(value, int | float) else ""
