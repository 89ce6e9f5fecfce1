"""Which positions a step reveals: each policy by what it promises, and the transitions that it makes exact."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from test_transitions import MASK, P2, random_logits, transition
from toy import PROMPTS, toy, toy_halves

from maskrl.errors import RecipeError
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.halton import halton_order, radical_inverse
from maskrl.grpo.positions import Candidates, confidence, halton, max_prob, random
from maskrl.grpo.unmask import Rule, unmask
from maskrl.grpo.update import collect
from maskrl.transitions.p_theta2 import PTheta2


def test_digits_are_mirrored_at_the_point():
    index = torch.tensor([0, 1, 2, 3, 4, 5])
    assert radical_inverse(index, 2).tolist() == [0, 1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8]
    assert radical_inverse(index, 3).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 9, 4 / 9, 7 / 9])


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (4, 4), (3, 5), (16, 16), (32, 32)])
def test_halton_names_every_cell_once(grid):
    assert sorted(halton_order(*grid).tolist()) == list(range(grid[0] * grid[1]))


def test_halton_follows_the_sequence():
    # points (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9) ... on 4 x 4 cells
    order = halton_order(4, 4)
    assert order.argsort()[:4].tolist() == [2 * 4 + 1, 1 * 4 + 2, 3 * 4 + 0, 0 * 4 + 1]


def test_halton_spreads():
    first = halton_order(8, 8).argsort()[:16]
    quarters = first // 8 // 4 * 2 + first % 8 // 4
    assert quarters.bincount(minlength=4).tolist() == pytest.approx([4] * 4, abs=1)


def step_of(order, num_revealed=2, tau=1.0, seed=0, logits=None, **rule):
    logits = random_logits(seed, 4, 3) if logits is None else logits
    uniform = torch.rand(500, 2, 4, generator=torch.Generator().manual_seed(seed))
    blank = torch.full((500, 4), MASK)
    rule = Rule(num_revealed, tau, order=order, grid=(2, 2), **rule)
    return unmask(logits.repeat(500, 1), blank, uniform, rule, MASK)


def test_halton_reveals_the_same_positions_whatever_was_proposed():
    step = step_of(halton)
    wanted = torch.where(halton_order(2, 2) < 2, halton_order(2, 2), -1)
    assert (step.reveal_rank == wanted).all()


def test_halton_goes_on_where_it_stopped():
    state = torch.tensor([[MASK, 0, MASK, 1]] * 3)
    masked = torch.tensor([0, 2])
    step = unmask(
        torch.zeros(6, 3), state, torch.rand(3, 2, 4), Rule(1, 1.0, order=halton, grid=(2, 2)), MASK
    )
    assert (step.reveal_rank[:, masked[halton_order(2, 2)[masked].argmin()]] == 0).all()


def test_a_random_order_is_uniform_and_knows_no_proposals():
    step = step_of(random)
    other = step_of(random, logits=9 * random_logits(8, 4, 3))
    assert torch.equal(step.reveal_rank, other.reveal_rank)
    for first, second in permutations(range(4), 2):
        seen = ((step.reveal_rank[:, first] == 0) & (step.reveal_rank[:, second] == 1)).sum().item()
        assert seen == pytest.approx(500 / 12, abs=5 * math.sqrt(500 / 12))


def test_confidence_without_noise_is_tau_0():
    score, places = torch.tensor([-3.0, -1.0, -2.0]), torch.arange(3)
    quiet = confidence(Candidates(score, torch.rand(3), places), 0.0)
    assert torch.equal(quiet, score)
    halves = toy_halves(sampling={"tau_init": 0.0})
    assert not collect(halves.actor, PROMPTS, 0).trajectory.tau.any()


def test_max_prob_is_free_of_the_proposals():
    logits = random_logits(1, 5, 4)
    p = logits.softmax(-1)
    for proposals in (torch.zeros(5, dtype=torch.long), torch.full((5,), 3)):
        found = max_prob(None, logits, proposals, torch.zeros(5), None)
        torch.testing.assert_close(found.exp(), p.amax(dim=-1))
    coarse = max_prob(None, logits.bfloat16(), proposals, torch.zeros(5), None)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, max_prob(None, logits.bfloat16().float(), proposals, None, None))


@pytest.mark.parametrize("policy", [{"position_policy": "random"}, {"score": "max_prob"}])
def test_a_rollout_under_each_policy_learns(policy):
    batch = collect(toy_halves(transition=PTheta2(PTheta2.Config()), sampling=policy).actor, PROMPTS, 0)
    assert (batch.trajectory.tokens < 4).all()


def test_p_theta2_is_exact_under_a_random_order():
    """Its exp, times the chance of the positions, is how often the sampler makes each next state."""
    logits, count = random_logits(3, 3, 3), 100_000
    uniform = torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(1))
    rule = Rule(1, 1.0, order=random)
    step = unmask(logits.repeat(count, 1), torch.full((count, 3), MASK), uniform, rule, MASK)
    for position in range(3):
        for code in range(3):
            codes = [[code if i == position else 0 for i in range(3)]]
            p = P2.log_prob(logits, transition([[MASK] * 3], codes, [[position]])).exp().item() / 3
            seen = ((step.reveal_rank[:, position] == 0) & (step.proposals[:, position] == code)).sum().item()
            assert abs(seen - count * p) <= 5 * (count * p * (1 - p)) ** 0.5


def test_halton_without_rows_and_columns_is_one_line():
    with pytest.raises(RecipeError, match=r'"halton" spreads over rows and columns.*choose "random"'):
        resolve(SamplingConfig(position_policy="halton"), toy().spec)
    resolve(SamplingConfig(position_policy="random"), toy().spec)
    resolve(SamplingConfig(position_policy="halton"), replace(toy().spec, grid=(2, 3)))


TAKES_THE_CONFIDENCE_FOR_GRANTED = {
    "p_theta1": (),
    "exact": (),
    "plackett_luce": (),
    "p_theta2": ("--set", "transition.order_from=0.5"),
}


@pytest.mark.parametrize("name", TAKES_THE_CONFIDENCE_FOR_GRANTED)
@pytest.mark.parametrize("change", ["position_policy=random", "score=max_prob"])
def test_what_takes_the_confidence_for_granted_refuses_another_order(cli, toy_recipe, name, change):
    changes = ("--set", f"transition.name={name}", *TAKES_THE_CONFIDENCE_FOR_GRANTED[name])
    result = cli("check", "on-policy", "--recipe", toy_recipe, *changes, "--set", f"sampling.{change}")
    assert result.code == 2
    assert "takes for granted that the proposals of the highest log p are revealed" in result.err
