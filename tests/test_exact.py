"""``exact``: against enumeration, counting, finite differences, the limit without noise, and itself in other sizes."""

from dataclasses import replace

import pytest
import torch
from test_estimators import every_draw, noisy
from test_transitions import MASK, MIXED, P1, P2, key, next_states, random_logits, transition
from toy import PROMPTS, toy, toy_halves

from maskrl import testing
from maskrl.grpo.unmask import Rule, unmask
from maskrl.grpo.update import collect, learn
from maskrl.transitions.exact import Exact
from maskrl.transitions.plackett_luce import PlackettLuce

EXACT = Exact(Exact.Config())
CANVASES = [(3, 3, 1), (3, 2, 2), (4, 2, 3), (2, 4, 1)]


def marginal(logits, num_revealed, tau):
    """The chance of each next state: all proposals and all orders of revealing, summed."""
    made = every_draw(*logits.shape, num_revealed, tau)
    early = PlackettLuce(PlackettLuce.Config(tau_min=tau / 2))
    chances = early.log_prob(logits.repeat(len(made.state), 1), made).exp()
    table = {}
    for p, codes, shown in zip(chances.tolist(), made.proposals, made.revealed, strict=True):
        state = key(codes, shown)
        table[state] = table.get(state, 0.0) + p
    return table


@pytest.mark.parametrize("tau", [0.01, 0.05, 0.2, 0.7, 2.0])
@pytest.mark.parametrize(("num_masked", "num_codes", "num_revealed"), CANVASES)
@pytest.mark.parametrize("ties", [False, True])
def test_it_is_the_distribution_of_the_next_state(num_masked, num_codes, num_revealed, tau, ties):
    everything = noisy(next_states(num_masked, num_codes, num_revealed), tau)
    logits = random_logits(3, num_masked, num_codes, ties)
    chances = EXACT.log_prob(logits.repeat(len(everything.state), 1), everything).exp()
    assert chances.sum().item() == pytest.approx(1, abs=1e-6)
    wanted = marginal(logits, num_revealed, tau)
    for p, codes, shown in zip(chances.tolist(), everything.proposals, everything.revealed, strict=True):
        assert p == pytest.approx(wanted[key(codes, shown)], rel=1e-4, abs=1e-12)


def test_it_agrees_with_counting_the_real_sampler():
    logits, count, tau = random_logits(7, 4, 3), 200_000, 0.3
    uniform = torch.rand(count, 2, 4, generator=torch.Generator().manual_seed(3))
    step = unmask(logits.repeat(count, 1), torch.full((count, 4), MASK), uniform, Rule(2, tau), MASK)
    states, counts = torch.where(step.reveal_rank >= 0, step.proposals, MASK).unique(
        dim=0, return_counts=True
    )
    seen = {tuple(state): n for state, n in zip(states.tolist(), counts.tolist(), strict=True)}
    everything = noisy(next_states(4, 3, 2), tau)
    chances = EXACT.log_prob(logits.repeat(len(everything.state), 1), everything).exp().tolist()
    for p, codes, shown in zip(chances, everything.proposals, everything.revealed, strict=True):
        assert abs(seen.get(key(codes, shown), 0) - count * p) <= 5 * (count * p * (1 - p)) ** 0.5 + 1e-9


@pytest.mark.parametrize("tau", [0.1, 0.7])
def test_gradients_against_finite_differences(tau):
    made = noisy(MIXED, tau)
    logits = random_logits(1, 8, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: EXACT.log_prob(x, made), logits, atol=1e-6, rtol=1e-4)


def test_without_noise_it_is_p_theta1_also_in_the_limit_and_on_ties():
    everything = next_states(3, 3, 2)
    early = Exact(Exact.Config(tau_min=1e-9))
    for ties in (False, True):
        logits = random_logits(2, 3, 3, ties).repeat(len(everything.state), 1)
        assert torch.equal(EXACT.log_prob(logits, everything), P1.log_prob(logits, everything))
    logits = random_logits(2, 3, 3).repeat(len(everything.state), 1)
    limit = early.log_prob(logits, noisy(everything, 1e-6)).exp()
    torch.testing.assert_close(limit, P1.log_prob(logits, everything).exp(), atol=1e-6, rtol=1e-4)


def test_under_much_noise_it_is_p_theta2_and_a_choice_at_random():
    logits = random_logits(4, 4, 3)
    made = noisy(transition([[MASK] * 4], [[0, 1, 2, 0]], [[1, 3]]), 1e4)
    found = EXACT.log_prob(logits, made) - P2.log_prob(logits, made)
    assert found.exp().item() == pytest.approx(1 / 6, rel=1e-2)


def test_the_last_step_is_the_product():
    last = noisy(transition([[MASK, 1, MASK]], [[2, 1, 0]], [[2, 0]]), 1.0)
    logits = random_logits(0, 2, 3)
    assert torch.equal(EXACT.log_prob(logits, last), P2.log_prob(logits, last))


def test_it_forgets_what_was_proposed_where_it_was_remasked_and_the_order():
    logits = random_logits(0, 4, 3)
    first = noisy(transition([[MASK] * 4], [[0, 1, 2, 0]], [[1, 3]]), 0.5)
    other = noisy(transition([[MASK] * 4], [[2, 1, 0, 0]], [[3, 1]]), 0.5)
    assert torch.equal(EXACT.log_prob(logits, first), EXACT.log_prob(logits, other))


def test_it_keeps_the_contract():
    for num_tokens, num_codes in ((2, 2), (6, 5)):
        testing.check_transition(EXACT, num_tokens, num_codes)


def test_on_policy_the_ratio_is_exactly_1():
    halves = toy_halves(toy(dtype="float32"), transition=EXACT)
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1
    assert metrics["grad_norm"] > 0


@pytest.mark.parametrize("tau", [0.02, 1.0])
def test_many_positions_and_codes_in_bf16_are_finite(tau):
    num_tokens, num_codes, num_masked = 1024, 8192, 24
    logits = 4 * torch.randn(num_masked, num_codes, generator=torch.Generator().manual_seed(0))
    logits = logits.bfloat16().requires_grad_()
    uniform = torch.rand(1, 2, num_masked, generator=torch.Generator().manual_seed(1))
    step = unmask(logits.detach(), torch.full((1, num_masked), MASK), uniform, Rule(8, tau), MASK)
    known = torch.zeros(1, num_tokens - num_masked, dtype=torch.long)
    made = transition(
        torch.cat([step.state, known], dim=1).tolist(),
        torch.cat([step.proposals, known], dim=1).tolist(),
        [[]],
    )
    made = noisy(replace(made, reveal_rank=torch.cat([step.reveal_rank, known - 1], dim=1)), tau)
    value = EXACT.log_prob(logits, made)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_fewer_numbers_at_a_time_change_nothing(monkeypatch):
    made = noisy(MIXED, 0.7)
    whole = EXACT.log_prob(random_logits(1, 8, 3), made)
    monkeypatch.setattr("maskrl.transitions.exact.PORTION", 1)
    torch.testing.assert_close(EXACT.log_prob(random_logits(1, 8, 3), made), whole, atol=1e-12, rtol=0)


def test_a_thousand_positions_of_one_code_each_way():
    # all alike: which n of M are revealed is a choice at random
    logits = torch.zeros(1024, 4, dtype=torch.float64)
    for tau in (0.01, 0.5, 3.0):
        made = noisy(transition([[MASK] * 1024], [[0] * 1024], [list(range(32))]), tau)
        found = EXACT.log_prob(logits, made) - P2.log_prob(logits, made)
        ways = torch.lgamma(torch.tensor([1025.0, 33.0, 993.0], dtype=torch.float64))
        assert found.item() == pytest.approx((ways[1] + ways[2] - ways[0]).item(), rel=1e-6)
