"""Transition probabilities beyond the paper: each by what it promises, by enumeration, counting and differences."""

import math
from dataclasses import replace
from itertools import permutations, product

import pytest
import torch
from test_transitions import AR, MASK, MIXED, P1, P2, random_logits, transition
from toy import PROMPTS, toy, toy_halves

from maskrl import testing
from maskrl.grpo.unmask import Rule, unmask
from maskrl.grpo.update import collect, learn
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.transitions.plackett_luce import PlackettLuce
from maskrl.transitions.random_remask import RandomRemask
from maskrl.types import Stream

PL = PlackettLuce(PlackettLuce.Config())
WEIGHTED = PTheta2(PTheta2.Config(order_from=0.5))
MEANS = {kind: kind(kind.Config(normalize="mean")) for kind in (Ar, PTheta1, PTheta2, RandomRemask)}


def noisy(made, tau):
    return replace(made, tau=torch.full((len(made.state),), tau))


def every_draw(num_masked, num_codes, num_revealed, tau):
    """All proposals of a blank canvas and all orders of revealing."""
    draws = [
        (codes, order)
        for codes in product(range(num_codes), repeat=num_masked)
        for order in permutations(range(num_masked), num_revealed)
    ]
    proposals, revealed = ([list(x) for x in column] for column in zip(*draws, strict=True))
    return noisy(transition([[MASK] * num_masked] * len(draws), proposals, revealed), tau)


@pytest.mark.parametrize("tau", [0.05, 0.7, 2.0])
@pytest.mark.parametrize(("num_masked", "num_codes", "num_revealed"), [(3, 3, 1), (3, 2, 2), (4, 2, 3)])
def test_plackett_luce_sums_to_1_over_proposals_and_orders(num_masked, num_codes, num_revealed, tau):
    made = every_draw(num_masked, num_codes, num_revealed, tau)
    logits = random_logits(1, num_masked, num_codes, ties=True).repeat(len(made.state), 1)
    assert PL.log_prob(logits, made).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_plackett_luce_agrees_with_counting_the_real_sampler():
    logits, count, tau = random_logits(2, 3, 2), 200_000, 0.7
    uniform = torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(0))
    step = unmask(logits.repeat(count, 1), torch.full((count, 3), MASK), uniform, Rule(2, tau), MASK)
    made = every_draw(3, 2, 2, tau)
    chances = PL.log_prob(logits.repeat(len(made.state), 1), made).exp()
    for p, codes, rank in zip(chances.tolist(), made.proposals, made.reveal_rank, strict=True):
        seen = ((step.proposals == codes) & (step.reveal_rank == rank)).all(dim=1).sum().item()
        assert abs(seen - count * p) <= 5 * (count * p * (1 - p)) ** 0.5 + 1e-9


def test_the_order_counts_from_tau_min_on_and_where_something_is_remasked():
    logits = random_logits(5, 8, 3)
    for tau, counts in ((0.0, False), (0.049, False), (0.051, True)):
        differs = PL.log_prob(logits, noisy(MIXED, tau)) != AR.log_prob(logits, MIXED)
        assert differs.tolist() == [counts, False, counts]  # the second row reveals all that is masked
    last = noisy(transition([[MASK, 1, MASK]], [[2, 1, 0]], [[2, 0]]), 1.0)
    assert torch.equal(PL.log_prob(logits[:2], last), AR.log_prob(logits[:2], last))
    early = PlackettLuce(PlackettLuce.Config(tau_min=0.01))
    assert (early.log_prob(logits, noisy(MIXED, 0.02)) < PL.log_prob(logits, noisy(MIXED, 0.02)))[0]


@pytest.mark.parametrize("name", [PL, WEIGHTED, *MEANS.values()])
def test_gradients_against_finite_differences(name):
    made = noisy(MIXED, 0.7)
    for seed in range(3):
        logits = random_logits(seed, 8, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: name.log_prob(x, made), logits, atol=1e-8)


@pytest.mark.parametrize("name", [PL, WEIGHTED, *MEANS.values()])
def test_they_keep_the_contract(name):
    for num_tokens, num_codes in ((2, 2), (6, 5), (8, 3)):
        testing.check_transition(name, num_tokens, num_codes)


def test_means_divide_by_what_the_sum_is_over():
    logits, masked = random_logits(5, 8, 3), torch.tensor([3, 1, 4])
    torch.testing.assert_close(MEANS[Ar].log_prob(logits, MIXED) * masked, AR.log_prob(logits, MIXED))
    torch.testing.assert_close(MEANS[PTheta1].log_prob(logits, MIXED) * masked, P1.log_prob(logits, MIXED))
    revealed = torch.tensor([1, 1, 2])
    torch.testing.assert_close(MEANS[PTheta2].log_prob(logits, MIXED) * revealed, P2.log_prob(logits, MIXED))


def test_p_theta2_counts_1_and_1_over_tau_times_where_tau_allows():
    logits, last = random_logits(5, 8, 3), 1.0  # the second row remasks nothing: its product is exact
    plain = P2.log_prob(logits, MIXED)
    for tau, factor in ((0.0, 1.0), (0.49, 1.0), (0.5, 3.0), (2.0, 1.5)):
        wanted = plain * torch.tensor([factor, last, factor], dtype=torch.float64)
        torch.testing.assert_close(WEIGHTED.log_prob(logits, noisy(MIXED, tau)), wanted)
    assert not P2.needs_log_prob
    assert WEIGHTED.needs_log_prob


def test_random_remask_makes_states_of_the_finished_image():
    halves = toy_halves(transition=RandomRemask(Ar.Config()))
    painted = collect(toy_halves().actor, PROMPTS, 0).trajectory
    made = collect(halves.actor, PROMPTS, 0).trajectory
    assert torch.equal(made.tokens, painted.tokens)
    masked = made.state == made.mask_id
    assert torch.equal(masked.sum(dim=-1), (painted.state == painted.mask_id).sum(dim=-1))
    assert torch.equal(made.state[~masked], made.tokens[:, None].expand_as(made.state)[~masked])
    assert torch.equal(made.reveal_rank >= 0, masked)
    assert torch.equal(made.proposals, made.tokens[:, None].expand_as(made.state))
    partial = masked[:, 1]
    assert len(partial.unique(dim=0)) > 4  # by chance, for each image
    drawn = RandomRemask(Ar.Config()).scored(painted, Stream(1))
    other = RandomRemask(Ar.Config()).scored(painted, Stream(2))
    assert not torch.equal(drawn.state, other.state)


def test_random_remask_masks_every_position_as_often():
    many = collect(toy_halves(config={"group_size": 500}).actor, PROMPTS[:1], 0).trajectory
    masked = RandomRemask(Ar.Config()).scored(many, Stream(0)).state[:, 1] == many.mask_id
    share = masked[0].double().mean().item()
    bound = 5 * math.sqrt(share * (1 - share) / 500)
    assert (masked.double().mean(dim=0) - share).abs().max() < bound


@pytest.mark.parametrize("name", [PL, WEIGHTED, *MEANS.values()])
def test_on_policy_the_ratio_is_exactly_1_and_the_gradient_is_not_0(name):
    generator = toy(dtype="float32")
    halves = toy_halves(generator, transition=name)
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_many_positions_and_codes_are_finite(tau):
    num_tokens, num_codes = 1024, 8192
    logits = 4 * torch.randn(num_tokens, num_codes, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(1, 2, num_tokens, generator=torch.Generator().manual_seed(1))
    step = unmask(logits, torch.full((1, num_tokens), 9999), uniform, Rule(32, tau), 9999)
    made = transition([[MASK] * num_tokens], step.proposals.tolist(), [[]])
    made = noisy(replace(made, reveal_rank=step.reveal_rank), tau)
    small = logits.bfloat16().requires_grad_()
    value = PL.log_prob(small, made)
    order = (value - AR.log_prob(small, made)).item()
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert -32 * 1024 < order < 0
    assert torch.autograd.grad(value.sum(), small)[0].isfinite().all()
