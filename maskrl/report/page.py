"""The page: what was read, drawn and judged, put into the template. Whatever comes from a run is text, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from maskrl import __version__, files
from maskrl.registry import is_local
from maskrl.report import charts, measured, pictures
from maskrl.report.curves import HEADINGS, constants, curves
from maskrl.report.groups import Group, Painted, extremes, newest, recorded_groups
from maskrl.report.reading import RunFolder, read_runs
from maskrl.report.settings import Settings, settings
from maskrl.report.verdicts import TROUBLE, Verdict, by_weight, last_update, verdicts
from maskrl.training.display import duration

COLOURS = 6  # runs that a colour tells apart; more begin again


@dataclass(frozen=True)
class Part:
    """What the page says of one run."""

    run: RunFolder
    facts: Sequence[tuple[str, str]]
    verdicts: Sequence[Verdict]
    headlines: Sequence[measured.Headline]
    base: Sequence[tuple[str, str]]
    tables: Sequence[measured.Table]
    sheets: Sequence[pictures.Picture]
    pair: pictures.Picture | None
    groups: Sequence[Group]
    steps: int
    has_parts: bool
    best: Sequence[Painted]
    worst: Sequence[Painted]
    constants: dict[str, str]
    settings: Settings | None


def write(folders: Sequence[Path], out: Path, against: str | None = None) -> None:
    """Write the page about some runs, whole or not at all.

    Raises:
        RecipeError: a folder holds no run, or ``against`` is no recipe.
        TrainingError: the place cannot be written.
    """
    files.write_text(out, render(folders, against))


def render(folders: Sequence[Path], against: str | None = None, live: bool = False) -> str:
    """Return the page about some runs; ``live``: one that asks its server for news.

    Raises:
        RecipeError: a folder holds no run, or ``against`` is no recipe.
    """
    runs = read_runs(folders)
    names = [run.name for run in runs]
    drawn = [charts.draw(curve, names) for curve in curves(runs)]
    return _template().render(
        title=names[0] if len(runs) == 1 else f"{len(runs)} runs",
        names=names,
        parts=[part(run, against) for run in runs],
        panels=[
            (heading, found)
            for key, heading in HEADINGS.items()
            if (found := [chart for chart in drawn if chart.curve.heading == key])
        ],
        against=measured.against_first(runs) if len(runs) > 1 else [],
        size=(charts.WIDTH, charts.HEIGHT),
        plot=(charts.LEFT, charts.TOP, charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM),
        colours=COLOURS,
        live=live,
        version=__version__,
    )


def part(run: RunFolder, against: str | None) -> Part:
    """Put together what the page says of a run."""
    troubles: list[str] = []
    recorded = recorded_groups(run.folder, troubles)
    best, worst = extremes(recorded)
    last = newest(recorded)
    films = [film for group in last for _, film in group.films]
    return Part(
        run=run,
        facts=facts(run),
        verdicts=by_weight(
            [*(Verdict(TROUBLE, line) for line in troubles), *verdicts(run), *measured.judged(run)]
        ),
        headlines=measured.headlines(run),
        base=measured.only_before(run),
        tables=measured.tables(run),
        sheets=pictures.sheets(run.folder),
        pair=pictures.before_after(run.folder),
        groups=last,
        steps=max((film.steps for film in films), default=0),
        has_parts=all(film.part is not None for film in films),
        best=best,
        worst=worst,
        constants={title: charts.short(value) for title, value in constants(run).items()},
        settings=None if run.recipe is None else settings(run.recipe, against),
    )


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Say what a run is, in a few words each."""
    made, planned = last_update(run), run.setting("training.updates")
    spent = sum(value for _, value in run.finite("seconds_total"))
    found = [("Updates", f"{made:,} of {planned:,}" if isinstance(planned, int) else f"{made:,}")]
    if run.updates:
        found.append(("Time in updates", f"{duration(spent)}, {spent / len(run.updates):.1f} s each"))
    for title, key in (
        ("Generator", "generator.name"),
        ("Reward", "reward.name"),
        ("Transition", "transition.name"),
    ):
        if name := run.setting(key):
            found.append((title, Path(name).name if is_local(name) else name))
    if group := run.setting("grpo.group_size"):
        found.append(("Images an update", f"{run.setting('training.prompts_per_update')} × {group}"))  # noqa: RUF001
    if run.starts:
        found += _surroundings(run.starts[-1])
    return found


def _surroundings(start: Any) -> list[tuple[str, str]]:
    devices = start.get("devices") or [start.get("processor") or "unknown"]
    versions = start.get("versions") or {}
    made_by = f"maskrl {versions.get('maskrl', '?')}, torch {versions.get('torch', '?')}"
    return [("Device", ", ".join(dict.fromkeys(map(str, devices)))), ("Made by", made_by)]


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("maskrl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")
