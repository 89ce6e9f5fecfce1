"""Where the marks of a chart stand: numbers become places in a picture of ``WIDTH`` by ``HEIGHT``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from maskrl.report.curves import Curve, Points

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 20  # room around the plot
MOST_POINTS = 300  # of a line: more than there are pixels are averaged
SMOOTH_FROM = 24  # updates from which a rolling mean stands before the single values


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True)
class Stroke:
    """A line of a chart: the run's place among all, its path in SVG, and behind it that of the single values."""

    run: int
    path: str
    behind: str
    points: Sequence[tuple[float, float, int, str]]
    end: tuple[float, float] | None


@dataclass(frozen=True)
class Chart:
    """A curve, drawn. ``gaps`` are the places of updates without a number; ``says`` is what one sees."""

    curve: Curve
    strokes: Sequence[Stroke]
    across: Sequence[Tick]
    up: Sequence[Tick]
    gaps: Sequence[float]
    says: str
    averaged: int


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def draw(curve: Curve, names: Sequence[str]) -> Chart:
    """Draw a curve; ``names`` are those of all runs."""
    every = [point for points in curve.lines.values() for point in points]
    last = max(update for update, _ in every)
    values = [value for _, value in every if math.isfinite(value)]
    marks = ticks(min(values), max(values))
    x = _Scale(min(update for update, _ in every), last, LEFT, WIDTH - RIGHT)
    y = _Scale(min(marks[0], *values), max(marks[-1], *values), HEIGHT - BOTTOM, TOP)
    longest = max(len(points) for points in curve.lines.values())
    averaged = max(1, -(-longest // MOST_POINTS))
    return Chart(
        curve=curve,
        strokes=[_stroke(run, points, x, y, averaged) for run, points in curve.lines.items()],
        across=[Tick(x(at), f"{at:,.0f}") for at in ticks(x.low, x.high, 4) if x.low <= at <= x.high and at % 1 == 0],
        up=[Tick(y(at), short(at)) for at in marks],
        gaps=[x(update) for update, value in every if not math.isfinite(value)],
        says=_says(curve, names),
        averaged=averaged,
    )  # fmt: skip


def _stroke(run: int, points: Points, x: _Scale, y: _Scale, averaged: int) -> Stroke:
    thin = _thinned(points, averaged)
    is_long = len([value for _, value in thin if math.isfinite(value)]) >= SMOOTH_FROM
    main = smoothed(thin) if is_long else thin
    places = [(x(u), y(v), u, short(v)) for u, v in main if math.isfinite(v)]
    return Stroke(
        run=run,
        path=_path(main, x, y),
        behind=_path(thin, x, y) if is_long else "",
        points=places,
        end=places[-1][:2] if places else None,
    )


def _path(points: Points, x: _Scale, y: _Scale) -> str:
    """Write a path that is interrupted where there is no number."""
    parts, is_open = [], False
    for update, value in points:
        if math.isfinite(value):
            parts.append(f"{'L' if is_open else 'M'}{x(update)} {y(value)}")
        is_open = math.isfinite(value)
    return "".join(parts)


def _thinned(points: Points, size: int) -> Points:
    if size == 1:
        return points
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(some[-1][0], _mean([value for _, value in some])) for some in bins]


def smoothed(points: Points) -> Points:
    """Return the rolling mean over about a tenth of the points, narrower at both ends."""
    reach = max(1, len(points) // 20)
    return [
        (update, _mean([v for _, v in points[max(0, i - reach) : i + reach + 1]]))
        if math.isfinite(value)
        else (update, value)
        for i, (update, value) in enumerate(points)
    ]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def ticks(low: float, high: float, about: int = 3) -> list[float]:
    """Return round numbers that reach around a range, or into it where it is a point."""
    if low == high:
        low, high = low - max(abs(low), 1) / 2, high + max(abs(high), 1) / 2
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 2.5, 5, 10) if size * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """Write a number in about three digits, with a true minus."""
    if not math.isfinite(value):
        return "no number"
    if value == 0:
        return "0"
    if abs(value) >= 1e4 or abs(value) < 1e-3:
        mantissa, _, power = f"{value:.2e}".partition("e")
        text = f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    else:
        text = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−")  # noqa: RUF001


def fifth(number: int) -> int:
    """Return over how many of so many updates a beginning and an end are averaged."""
    return max(1, number // 5)


def _says(curve: Curve, names: Sequence[str]) -> str:
    """Say in words from where to where each line goes."""
    parts = []
    for run, points in curve.lines.items():
        finite = [(update, value) for update, value in points if math.isfinite(value)]
        span = fifth(len(finite))
        first, last = (_mean([v for _, v in some]) for some in (finite[:span], finite[-span:]))
        over = f" (means of {span})" if span > 1 else ""
        name = f"{names[run]}: " if len(names) > 1 else ""
        parts.append(f"{name}{short(first)} → {short(last)}{over}")
    return "; ".join(parts)
