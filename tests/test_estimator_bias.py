"""The table of bias and variance: its enumeration is the sampler's, so what scores what was sampled has no bias."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from estimator_bias import (  # noqa: E402
    BEGIN,
    END,
    ESTIMATORS,
    NAMES,
    PAGE,
    POLICIES,
    RESULT,
    Canvas,
    N,
    Network,
    V,
    compare,
    enumerate_steps,
    rendered,
)

UNBIASED = {
    "confidence": {"plackett_luce", "exact"},
    "random": {"ar", "p_theta2"},
    "halton": {"ar", "p_theta2"},
}


@pytest.mark.parametrize("policy", UNBIASED)
def test_what_scores_what_was_sampled_has_no_bias_and_the_others_have(policy, monkeypatch):
    monkeypatch.delitem(ESTIMATORS, "p_theta1, mean")
    monkeypatch.setattr("estimator_bias.NAMES", tuple(name for name in NAMES if name != "p_theta1, mean"))
    reward = torch.randn(V**N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = compare(Canvas(Network(1, 3.0), enumerate_steps(), POLICIES[policy]), reward)
    for name, row in found.items():
        is_unbiased = abs(row["cosine"] - 1) < 1e-6 and abs(row["length"] - 1) < 1e-4
        assert is_unbiased == (name in UNBIASED[policy]), name
        assert row["variance"] > 0
    if policy == "confidence":  # what it forgets is averaged over
        assert found["exact"]["variance"] < found["plackett_luce"]["variance"]


def test_the_page_has_the_numbers_of_the_results_file():
    table = json.loads(RESULT.read_text())["policies"]
    assert PAGE.read_text().split(BEGIN)[1].split(END)[0].strip() == rendered(table)


def test_the_exact_probability_has_no_bias_in_the_table():
    for row in json.loads(RESULT.read_text())["policies"]["confidence"].values():
        for name in ("exact", "plackett_luce"):
            assert row[name]["least_cosine"] == pytest.approx(1, abs=1e-4)
            assert row[name]["length"] == pytest.approx(1, abs=1e-4)
