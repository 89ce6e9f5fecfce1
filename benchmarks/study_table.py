"""Keep what a sweep has found, and write its table into docs/results.md.

    python benchmarks/study_table.py benchmarks/studies/settings.toml --sweep sweeps/settings
    python benchmarks/study_table.py benchmarks/studies/settings.toml

The first writes benchmarks/results/NAME.jsonl (a row per finished run) and NAME_updates.json (every update's reward and
seconds), and then the table; the second the table only, from these files. Gains are after less before, intervals are of
95 % over seeds, differences are paired by seed with the sweep's baseline.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t

from maskrl.runtime.metrics import read_rows

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"
LAST = 6  # updates, of which the reward is shown
GAINS = {"GenEval-shapes": ("geneval", "overall"), "clean": ("cleanliness", "clean")}
GAINS |= {"strict": ("cleanliness", "strict")}


def interval(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Return mean ± the half width of the 95 % interval of Student's t."""
    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):{sign}.{digits}f} ± {half:.{digits}f}"


def keep(study: Path, sweep: Path) -> None:
    """Copy rows of finished runs, and what every update said, out of a sweep's folder."""
    lines = [
        line
        for line in (sweep / "results.jsonl").read_text().splitlines()
        if json.loads(line)["status"] == "finished"
    ]
    (RESULTS / f"{study.stem}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    updates: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in map(json.loads, lines):
        metrics = [
            m for m in read_rows(sweep / row["variant"] / f"seed_{row['seed']}") if m["kind"] == "update"
        ]
        updates.setdefault(row["variant"], {})[str(row["seed"])] = {
            "reward_mean": [round(m["reward_mean"], 2) for m in metrics],
            "seconds": [round(m["seconds_total"], 2) for m in metrics],
        }
    (RESULTS / f"{study.stem}_updates.json").write_text(json.dumps(updates, indent=1) + "\n")


def table(study: Path) -> str:
    """Return the table of a study's rows, in Markdown."""
    told = tomllib.loads(study.read_text())
    rows = [json.loads(line) for line in (RESULTS / f"{study.stem}.jsonl").read_text().splitlines()]
    updates = json.loads((RESULTS / f"{study.stem}_updates.json").read_text())
    gains: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        for what, (label, number) in GAINS.items():
            after, before = (row[when][label][number]["mean"] for when in ("after", "before"))
            gains.setdefault((row["variant"], what), {})[row["seed"]] = after - before
    head = [
        "",
        *(f"{what} | against `{told['baseline']}`" for what in GAINS),
        f"reward, last {LAST}",
        "s an update",
    ]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * (3 + 2 * len(GAINS))]
    for name in told["variants"]:
        cells: list[str] = [f"`{name}`"]
        for what in GAINS:
            mine, base = gains[name, what], gains[told["baseline"], what]
            assert mine.keys() == base.keys() == set(told["seeds"]), (name, what)
            cells.append(interval([mine[seed] for seed in told["seeds"]], 3, "+"))
            against = [mine[seed] - base[seed] for seed in told["seeds"]]
            cells.append("-" if name == told["baseline"] else interval(against, 3, "+"))
        of_seeds: list[dict[str, Any]] = list(updates[name].values())
        cells.append(interval([statistics.mean(one["reward_mean"][-LAST:]) for one in of_seeds], 1))
        cells.append(f"{min(statistics.median(one['seconds']) for one in of_seeds):.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(study: Path) -> None:
    """Put the table of a study where the page has its marks."""
    begin, end = (f"<!-- {mark}{study.stem} -->\n" for mark in ("", "/"))
    page = PAGE.read_text(encoding="utf-8")
    first, rest = page.split(begin)
    PAGE.write_text(f"{first}{begin}{table(study)}\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="its TOML file")
    parser.add_argument("--sweep", type=Path, help="the folder of 'maskrl sweep --out'")
    given = parser.parse_args()
    if given.sweep is not None:
        keep(given.study, given.sweep)
    write(given.study)
