"""What a sweep has found: means over seeds with 95 % intervals, each variant paired by seed with a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table
from scipy.special import stdtrit

from maskrl.sweeps.cells import FAILED, FINISHED, OPEN, Row
from maskrl.uncertainty import standard_error

CONFIDENCE = 0.95
SECONDS = "seconds per update"
Values = dict[int, tuple[float | None, float]]  # by seed: before and after


@dataclass(frozen=True)
class Interval:
    """A mean and half of its 95 % interval; None where a single value, or none, has none."""

    mean: float | None
    half: float | None

    def __str__(self) -> str:
        if self.mean is None:
            return ""
        return f"{self.mean:.3f}" if self.half is None else f"{self.mean:.3f} ± {self.half:.3f}"


@dataclass(frozen=True)
class Line:
    """One number of one variant, over the seeds that have it.

    ``gain`` is after - before, ``against`` is after - the baseline's after, both seed by seed. ``is_headline`` tells
    the first number of an evaluation from what it is made of.
    """

    variant: str
    number: str
    is_headline: bool
    seeds: tuple[int, ...]
    before: Interval
    after: Interval
    gain: Interval
    against: Interval


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values, and half of its 95 % interval by Student's t."""
    if not values:
        return Interval(None, None)
    mean = sum(values) / len(values)
    if len(values) == 1:
        return Interval(mean, None)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return Interval(mean, quantile * standard_error(values))


def lines(rows: Sequence[Row], baseline: str | None) -> list[Line]:
    """Return every number of every variant, number by number."""
    found: dict[tuple[str, bool], dict[str, Values]] = {}
    for row in rows:
        for key, before, after in _numbers(row):
            by_variant = found.setdefault(key, {})
            by_variant.setdefault(row["variant"], {})[row["seed"]] = before, after
    return [
        _line(variant, number, is_headline, values, by_variant.get(baseline or "", {}))
        for (number, is_headline), by_variant in found.items()
        for variant, values in by_variant.items()
    ]


def _numbers(row: Row) -> Iterator[tuple[tuple[str, bool], float | None, float]]:
    """Yield what a row has: which number and whether it is a headline, before and after."""
    if row["status"] != FINISHED:
        return
    for label, after in row["after"].items():
        before, headline = row["before"].get(label, {}), next(iter(after))
        for name, number in after.items():
            key = label if name == headline else f"{label} {name}"
            yield (key, name == headline), before.get(name, {}).get("mean"), number["mean"]
    for best in row.get("best_guidance", ()):  # rows of before there were several have none
        key = f"{best['section']} at its best guidance"
        yield (key, True), best["before"]["mean"], best["after"]["mean"]
    if row["seconds_per_update"] is not None:
        yield (SECONDS, True), None, row["seconds_per_update"]


def _line(variant: str, number: str, is_headline: bool, values: Values, base: Values) -> Line:
    starts = [before for before, _ in values.values() if before is not None]
    gains = [after - before for before, after in values.values() if before is not None]
    paired = [after - base[seed][1] for seed, (_, after) in values.items() if seed in base]
    return Line(
        variant=variant,
        number=number,
        is_headline=is_headline,
        seeds=tuple(values),
        before=interval(starts),
        after=interval([after for _, after in values.values()]),
        gain=interval(gains),
        against=interval([] if values is base else paired),
    )


def table(rows: Sequence[Row], baseline: str | None) -> Table:
    """Tabulate the headlines, and how many seeds of each variant have failed or are open."""
    shown = Table(title="means ± 95 % intervals over seeds")
    for heading in ("", "variant"):
        shown.add_column(heading)
    headings = ["seeds", "before", "after", "after - before"]
    for heading in headings + ([f"against {baseline}"] if baseline else []):
        shown.add_column(heading, justify="right")
    number = None
    for line in (line for line in lines(rows, baseline) if line.is_headline):
        if number is not None and line.number != number:
            shown.add_section()
        first = line.number if line.number != number else ""
        number = line.number
        cells = [str(line.before), str(line.after), _signed(line.gain)]
        cells += [_signed(line.against)] if baseline else []
        shown.add_row(first, line.variant, str(len(line.seeds)), *cells)
    shown.add_section()
    for variant, said in _unfinished(rows).items():
        shown.add_row("", variant, said)
    return shown


def _signed(interval: Interval) -> str:
    text = str(interval).replace("-0.000", "0.000")
    return f"+{text}" if text and not text.startswith("-") else text


def _unfinished(rows: Sequence[Row]) -> dict[str, str]:
    """Say of each variant how many of its seeds have failed or are open; nothing of one that has all."""
    said: dict[str, str] = {}
    for variant in dict.fromkeys(row["variant"] for row in rows):
        statuses = [row["status"] for row in rows if row["variant"] == variant]
        counts = {status: statuses.count(status) for status in (FAILED, OPEN)}
        if text := ", ".join(f"{count} {status}" for status, count in counts.items() if count):
            said[variant] = text
    return said
