import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskrl.filters.keep_all import KeepAll
from maskrl.filters.std_percentile import StdPercentile


def std_percentile(**settings):
    return StdPercentile(StdPercentile.Config(**settings))


def groups(*stds):
    """Groups of two images with exactly these population stds."""
    return torch.tensor([[-s, s] for s in stds], dtype=torch.float64)


def test_keep_all_keeps_all():
    group_filter = KeepAll(KeepAll.Config())
    assert group_filter.keep(groups(0.0, 1.0)).tolist() == [True, True]
    assert group_filter.state_dict() == group_filter.metrics() == {}


def test_a_round_is_tested_against_the_history_before_it_then_all_of_it_enters():
    group_filter = std_percentile(percentile=50, warmup=3)
    assert group_filter.keep(groups(1.0, 2.0, 3.0)).all()
    # median of 1 2 3 is 2: strictly below it is rejected, equal is kept; the round's own values do not count
    assert group_filter.keep(groups(0.5, 1.9, 2.0, 9.0)).tolist() == [False, False, True, True]
    # rejected stds are history too: 0.5 1 1.9 2 2 3 9
    assert group_filter.keep(groups(1.99, 2.0)).tolist() == [False, True]
    assert group_filter.metrics() == {"filter_threshold": 2.0, "filter_history": 9.0}


def test_nothing_is_rejected_before_the_warmup():
    group_filter = std_percentile(percentile=100, warmup=4)
    assert group_filter.keep(groups(5.0, 6.0, 7.0)).all()
    assert group_filter.keep(groups(0.1)).all()
    assert not group_filter.keep(groups(0.1)).any()


def test_groups_of_equal_rewards_are_never_kept_however_common_they_are():
    # a binary reward that is 1 for a tenth of the images: with G = 6, 53 % of the groups are all 0, and so is the
    # 10th percentile of the stds
    draws = torch.rand(4000, 6, generator=torch.Generator().manual_seed(0)) < 0.1
    for warmup in (1, 32, 10_000):
        group_filter = std_percentile(percentile=10, warmup=warmup)
        kept = torch.cat([group_filter.keep(rewards) for rewards in draws.float().split(8)])
        assert torch.equal(kept, draws.any(dim=1) & ~draws.all(dim=1))
        assert kept.double().mean() == pytest.approx(1 - 0.9**6, abs=0.02)
        assert group_filter.metrics()["filter_threshold"] == 0


@pytest.mark.parametrize("reward", [0.1, 12345.678, 1e6])
def test_equal_rewards_are_equal_however_large(reward):
    assert not std_percentile(warmup=1).keep(torch.full((3, 6), reward)).any()


@given(st.lists(st.floats(0, 10), min_size=5, max_size=40), st.floats(0, 100), st.floats(0, 10))
def test_the_threshold_interpolates_linearly(history, percentile, new):
    group_filter = std_percentile(percentile=percentile, warmup=5)
    group_filter.keep(groups(*history))
    stds = groups(*history).std(dim=1, correction=0).numpy()
    kept = group_filter.keep(groups(new)).item()
    std = groups(new).std(dim=1, correction=0).item()
    assert kept == (new > 0 and std >= np.percentile(stds, percentile, method="linear"))


def test_equal_groups_are_kept():
    group_filter = std_percentile(percentile=10, warmup=2)
    for _ in range(5):
        assert group_filter.keep(groups(0.3, 0.3)).all()


def test_the_window_forgets():
    group_filter = std_percentile(percentile=100, window=2, warmup=2)
    group_filter.keep(groups(9.0, 1.0, 2.0))
    assert group_filter.keep(groups(2.0)).all()
    assert group_filter.state_dict()["history"] == [2.0, 2.0]


def test_a_saved_state_continues_exactly():
    first, second = std_percentile(warmup=3), std_percentile(warmup=3)
    rng = torch.Generator().manual_seed(0)
    first.keep(torch.randn(20, 4, generator=rng))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.metrics() == first.metrics()
    fresh = torch.randn(50, 4, generator=rng) * 0.7
    assert torch.equal(first.keep(fresh), second.keep(fresh))
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize(
    "settings", [{"percentile": 101}, {"warmup": 0}, {"window": 3, "warmup": 5}, {"windows": 3}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        StdPercentile.Config(**settings)
