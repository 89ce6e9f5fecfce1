"""The probe's statistics, on scores whose answer is known; what it does with images is in test_probe.py."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from maskrl.errors import RecipeError
from maskrl.evals.results import to_json
from maskrl.evaluations.caption_margins import (
    Ranking,
    captions,
    compare_captions,
    exchange,
    has_captions,
    rank_groups,
    summarise,
)
from maskrl.types import Stream

STREAM = Stream(5)
SOUND = Ranking(0.8, 0.7, 0.9, 10, 2)


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("dog", 2, ("one dog", "two dogs", "four dogs")),
        ("bus", 4, ("two buses", "four buses", "eight buses")),
        ("toothbrush", 6, ("three toothbrushs", "six toothbrushs", "twelve toothbrushs")),
        ("clock", 10, ("five clocks", "ten clocks", "twenty clocks")),
    ],
)
def test_captions_say_half_the_same_and_double(name, number, expected):
    assert captions(name, number) == tuple(f"a photo of {words}" for words in expected)


@pytest.mark.parametrize(
    ("number", "has"), [(-2, False), (0, False), (1, False), (3, False), (2, True), (10, True), (12, False)]
)
def test_what_has_a_half_and_a_double(number, has):
    assert has_captions(number) == has


# Table 5 of the paper: half, the same, double.
TABLE_5 = {
    "six clocks": (32.5298, 35.8555, 33.2857),
    "four handbags": (29.7800, 33.0426, 32.4762),
    "two backpacks": (28.4991, 34.1256, 29.7021),
    "two frisbees": (32.1401, 36.8218, 29.6494),
    "four toothbrushs": (33.8095, 38.2953, 34.8197),
    "four vases": (28.2428, 37.1507, 29.9521),
    "two computer keyboards": (32.3883, 37.2445, 31.1868),
    "four baseball gloves": (29.5035, 33.6917, 31.3151),
    "two beds": (33.5974, 38.9766, 31.7446),
    "four giraffes": (29.2052, 36.3132, 32.4882),
}


def test_the_papers_table_comes_out_but_for_one_of_its_means():
    row = compare_captions(torch.tensor(list(TABLE_5.values())), list(TABLE_5), STREAM)
    assert row.half.value == pytest.approx(30.9696, abs=1e-4)
    assert row.double.value == pytest.approx(31.6620, abs=1e-4)
    # The paper prints 35.1873, which is not the mean of its ten rows.
    assert row.same.value == pytest.approx(36.1517, abs=1e-4)
    assert (row.top, row.over_half.wins, row.over_double.wins) == (1, 1, 1)
    assert row.over_half.low > 3
    assert row.over_double.low > 2


def test_the_control_shows_another_class():
    classes = [name for name in ("dog", "bus", "toothbrush") for _ in range(6)]
    drawn = exchange(classes, STREAM)
    assert all(classes[other] != name for name, other in zip(classes, drawn, strict=True))
    assert drawn == exchange(classes, STREAM)
    assert drawn != exchange(classes, Stream(6))
    assert len(set(drawn)) > 3


def test_one_class_has_no_control():
    with pytest.raises(RecipeError, match="all prompts ask for 'dog'"):
        exchange(["dog", "dog"], STREAM)


@pytest.mark.parametrize(
    ("scores", "ranking", "holds"),
    [
        ([(0.0, 1.0, 0.0), (0.0, 2.0, 0.5)], SOUND, True),
        ([(0.0, 1.0, 0.0), (0.0, 2.0, 0.5)], replace(SOUND, auc=0.5), False),
        ([(0.0, 1.0, 0.0), (2.0, 1.0, 0.0)], SOUND, False),
        ([(0.0, 1.0, 0.0), (0.0, 1.0, 2.0)], SOUND, False),
        ([(0.0, 1.0, 0.0), (0.0, 2.0, 0.5)], Ranking(math.nan, math.nan, math.nan, 0, 0), False),
    ],
)
def test_what_it_takes_to_hold(scores, ranking, holds):
    scores = torch.tensor(scores)
    report = summarise(scores, torch.zeros(2, 3), [2, 2], ["a", "b"], ranking, STREAM)
    assert report.holds == holds


def test_a_tie_is_no_win():
    row = compare_captions(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), ["a", "b"], STREAM)
    assert (row.over_half.wins, row.over_double.wins, row.top) == (0.5, 0.5, 0)


def test_the_interval_is_that_of_the_mean_over_prompts():
    rng = np.random.default_rng(0)
    margins = torch.from_numpy(rng.normal(0.3, 1.0, 400))
    scores = torch.stack([torch.zeros(400), margins, torch.zeros(400)], dim=1)
    row = compare_captions(scores, [str(i) for i in range(400)], STREAM)
    error = float(margins.std()) / 20
    assert row.same.se == pytest.approx(error)
    assert row.over_half.mean == pytest.approx(float(margins.mean()))
    assert row.over_half.low == pytest.approx(row.over_half.mean - 1.96 * error, abs=0.15 * error)
    assert row.over_half.high == pytest.approx(row.over_half.mean + 1.96 * error, abs=0.15 * error)


def test_a_margin_has_an_error_over_prompts():
    scores = torch.tensor([[0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 4.0, 0.0]])
    row = compare_captions(scores, ["a", "a", "b"], STREAM)
    # the mean over images is (1 + 3 + 4) / 3; each prompt moves it by 2/3 of the sum of its distances: -8/9 and 8/9
    assert row.over_half.mean == pytest.approx(8 / 3)
    assert row.over_half.se == pytest.approx(np.std([-8 / 9, 8 / 9], ddof=1) / np.sqrt(2))
    assert math.isnan(compare_captions(scores[:2], ["a", "a"], STREAM).over_half.se)


def test_the_error_is_that_of_a_bootstrap_over_prompts_of_unequal_numbers():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 40, size=60)
    levels = rng.normal(0, 3, size=60) + counts / 8  # the more images a prompt has, the larger its margins
    prompts = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    margins = np.repeat(levels, counts)
    scores = torch.tensor(np.stack([np.zeros_like(margins), margins, np.zeros_like(margins)], axis=1))
    drawn = rng.integers(60, size=(4000, 60))
    means = (levels * counts)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    found = compare_captions(scores, prompts, STREAM).over_half
    assert found.se == pytest.approx(means.std(), rel=0.08)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.se, rel=0.1)


def test_images_of_one_prompt_are_one_draw():
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 3)))
    prompts = [str(i) for i in range(8)]
    once = compare_captions(scores, prompts, STREAM)
    often = compare_captions(
        scores.repeat_interleave(4, dim=0), [p for p in prompts for _ in range(4)], STREAM
    )
    assert (often.images, often.prompts) == (32, 8)
    assert often.same.se == pytest.approx(once.same.se)
    assert often.over_half == replace(
        once.over_half,
        se=pytest.approx(once.over_half.se),
        low=pytest.approx(once.over_half.low),
        high=pytest.approx(once.over_half.high),
    )


def test_intervals_are_a_function_of_the_stream():
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 3)))
    prompts = [str(i) for i in range(8)]
    first = compare_captions(scores, prompts, STREAM)
    assert first == compare_captions(scores, prompts, STREAM)
    assert first.over_half.low != compare_captions(scores, prompts, Stream(6)).over_half.low


def test_groups_are_ranked_as_pairs_are():
    rng = np.random.default_rng(2)
    scores = torch.from_numpy(rng.integers(0, 4, 60).astype(np.float64))
    correct = torch.from_numpy(rng.integers(0, 2, 60).astype(bool))
    groups = [str(i // 6) for i in range(60)]
    pairs = [
        (scores[i] - scores[j]).sign().item() / 2 + 0.5
        for i in range(60)
        for j in range(60)
        if correct[i] and not correct[j] and groups[i] == groups[j]
    ]
    ranking = rank_groups(scores, correct, groups, STREAM)
    assert (ranking.auc, ranking.pairs) == (pytest.approx(np.mean(pairs)), len(pairs))
    assert ranking.low < ranking.auc < ranking.high
    shifted = scores + torch.tensor([100.0 * int(group) for group in groups])
    assert rank_groups(shifted, correct, groups, STREAM) == ranking


def test_groups_that_are_all_right_or_all_wrong_say_nothing():
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    correct = torch.tensor([True, True, False, False, True])
    ranking = rank_groups(scores, correct, ["a", "a", "b", "c", "c"], STREAM)
    assert (ranking.auc, ranking.pairs, ranking.groups) == (1, 1, 1)
    assert math.isnan(ranking.low)
    nothing = rank_groups(scores[:3], correct[:3], ["a", "a", "b"], STREAM)
    assert math.isnan(nothing.auc)
    assert (nothing.pairs, nothing.groups) == (0, 0)


def test_the_report_is_json_and_what_does_not_exist_is_null():
    ranking = rank_groups(torch.zeros(1), torch.ones(1, dtype=torch.bool), ["a"], STREAM)
    scores = torch.tensor([[-1.0, 0.0, -2.0], [-2.0, 0.0, -4.0]])
    report = summarise(scores, 0 * scores, [2, 4], ["a", "b"], ranking, STREAM)
    written = json.loads(to_json(asdict(report)))
    assert written["pooled"]["over_half"]["mean"] == report.pooled.over_half.mean
    assert written["numbers"]["4"]["prompts"] == 1
    assert written["numbers"]["4"]["over_half"]["low"] is None
    assert written["ranking"]["auc"] is None
