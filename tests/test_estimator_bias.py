"""The benchmark of bias: its enumeration is the sampler's, so what scores all that was sampled has no bias."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from estimator_bias import ESTIMATORS, RESULT, N, Network, V, cosines, enumerate_steps  # noqa: E402


@pytest.mark.parametrize("seed", [0, 1])
def test_scoring_all_that_was_sampled_has_no_bias_and_the_paper_s_estimators_have(seed):
    reward = torch.randn(V**N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = cosines(enumerate_steps(), Network(seed, 3.0), reward)
    assert found["plackett_luce"] == pytest.approx(1, abs=1e-9)
    for name in ("ar", "p_theta1", "p_theta2"):
        assert 0.5 < found[name] < 1 - 1e-6


def test_the_page_has_the_numbers_of_the_results_file():
    page = (BENCHMARKS.parent / "docs" / "equations.md").read_text()
    table = json.loads(RESULT.read_text())["cosine"]
    for name in ESTIMATORS:
        cells = [f"{row[name]['median']:.3f} ({row[name]['minimum']:.3f})" for row in table.values()]
        assert f"| `{name}` | {' | '.join(cells)} |" in page, name
