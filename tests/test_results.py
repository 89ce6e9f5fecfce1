"""The page of results says what the files of results say."""

import json
import math
import statistics
from pathlib import Path

import pytest
from scipy.stats import t

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
LAST = 6  # updates


def interval(values):
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


def shown(values, digits, sign=""):
    mean, half = interval(values)
    return f"{mean:{sign}.{digits}f} ± {half:.{digits}f}"


def figure1():
    """By transition: the gain in GenEval and the last rewards, seed by seed."""
    rows = [json.loads(line) for line in (RESULTS / "figure1.jsonl").read_text().splitlines()]
    rewards = json.loads((RESULTS / "figure1_rewards.json").read_text())["reward_mean"]
    found = {}
    for name in rewards:
        mine = sorted((row for row in rows if row["variant"] == name), key=lambda row: row["seed"])
        assert [row["seed"] for row in mine] == [0, 1, 2, 3, 4]
        gain = [
            row["after"]["geneval"]["overall"]["mean"] - row["before"]["geneval"]["overall"]["mean"]
            for row in mine
        ]
        last = [statistics.mean(rewards[name][str(row["seed"])][-LAST:]) for row in mine]
        found[name] = (gain, last)
    return found


@pytest.mark.parametrize("name", ["p_theta2", "p_theta1", "ar", "plackett_luce"])
def test_the_table_of_figure_1_is_that_of_its_rows(name):
    found = figure1()
    gain, last = found[name]
    cells = [shown(last, 1), shown(gain, 3, "+")]
    for mine, base, digits in zip(found[name], found["p_theta2"], (3, 1), strict=True):
        against = [a - b for a, b in zip(mine, base, strict=True)]
        cells.append("-" if name == "p_theta2" else shown(against, digits, "+"))
    assert f"| `{name}` | {' | '.join([cells[0], cells[3], cells[1], cells[2]])} |" in PAGE


def test_the_table_of_signal_is_that_of_its_file():
    signal = json.loads((RESULTS / "gradient_noise.json").read_text())["signal"]
    assert len(signal) == 7
    for name, row in signal.items():
        assert f"| {name} | {row['all']['signal']:.3f} ± {row['all']['se']:.3f} |" in PAGE
