import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.errors import RecipeError
from maskrl.grpo.schedule import SCHEDULES, unmask_counts
from maskrl.grpo.temperature import temperatures


def showo_counts(num_tokens, num_steps):
    """Show-o's released loop; it leaves one token masked after the last step."""
    left = [num_tokens]
    for step in range(num_steps):
        share = torch.cos(torch.tensor(1.0 * (step + 1) / num_steps) * math.pi * 0.5)
        wanted = (num_tokens * share).floor()
        left.append(int(max(torch.tensor([1.0]), min(torch.tensor(left[-1] - 1.0), wanted))))
    return [before - after for before, after in pairwise(left)]


@given(st.data(), st.integers(1, 1100), st.sampled_from(sorted(SCHEDULES)))
def test_every_step_reveals_and_all_is_revealed(data, num_tokens, schedule):
    num_steps = data.draw(st.integers(1, min(num_tokens, 200)))
    counts = unmask_counts(num_tokens, num_steps, schedule)
    assert len(counts) == num_steps
    assert min(counts) >= 1
    assert sum(counts) == num_tokens


@pytest.mark.parametrize(
    ("num_tokens", "num_steps"), [(1024, 50), (1024, 12), (1024, 18), (256, 16), (36, 9)]
)
def test_cosine_is_show_os_but_for_the_token_it_forgets(num_tokens, num_steps):
    theirs = showo_counts(num_tokens, num_steps)
    assert unmask_counts(num_tokens, num_steps, "cosine") == [*theirs[:-1], theirs[-1] + 1]


def test_the_last_of_fifty_steps_reveals_32_of_1024():
    assert unmask_counts(1024, 50, "cosine")[-1] == 32


@pytest.mark.parametrize("num_steps", [12, 18, 48])
def test_cosine_is_computed_in_fp32(num_steps):
    exact = [math.floor(1024 * math.cos(math.pi / 2 * (t + 1) / num_steps)) for t in range(num_steps - 1)]
    counts = unmask_counts(1024, num_steps, "cosine")
    left = [1024 - sum(counts[: t + 1]) for t in range(num_steps - 1)]
    assert sum(a != b for a, b in zip(left, exact, strict=True)) == 1


def test_as_many_steps_as_tokens_reveal_one_each():
    assert unmask_counts(7, 7, "cosine") == [1] * 7


@pytest.mark.parametrize("num_steps", [0, 37])
def test_impossible_numbers_of_steps_are_named(num_steps):
    with pytest.raises(RecipeError, match=rf"num_steps = {num_steps}, but an image has 36 tokens"):
        unmask_counts(36, num_steps, "cosine")


def test_compound_multiplies_before_use():
    taus = temperatures(50, "compound", 1.0)
    assert taus[0] == pytest.approx(1 - 1 / 50)
    assert taus[24] == pytest.approx(3.3e-4, rel=0.02)
    assert taus[-1] == 0.0
    assert temperatures(16, "compound", 1.0)[:4] == pytest.approx([0.938, 0.820, 0.667, 0.5], abs=1e-3)


def test_linear_runs_from_tau_init_to_zero():
    assert temperatures(5, "linear", 2.0) == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])
    assert temperatures(1, "linear", 2.0) == [2.0]


def test_unknown_names_list_the_known():
    with pytest.raises(
        RecipeError, match=r"'cosign'; did you mean 'cosine'\? \(there are: cosine, linear, arccos\)"
    ):
        unmask_counts(4, 2, "cosign")
    with pytest.raises(RecipeError, match="no temperature_rule"):
        temperatures(2, "cold", 1.0)
