from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_transitions import AR, MASK, MIXED, P1, next_states, random_logits, transition

from maskrl.grpo.objective import KL, MAX_LOG_RATIO, MAX_WEIGHT, clipped, kl_exact, ratio, surrogate


def test_the_ratio_of_equals_is_exactly_one():
    logp = torch.randn(100) * 1000
    assert (ratio(logp, logp) == 1).all()


def test_the_ratio_is_bounded():
    values = ratio(torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]))
    torch.testing.assert_close(values, torch.tensor([MAX_LOG_RATIO, -MAX_LOG_RATIO]).exp())


@pytest.mark.parametrize(
    ("value", "adv", "gain", "flat"),
    [
        (1.1, 2.0, 2.2, False),
        (1.3, 2.0, 2.4, True),
        (0.5, 2.0, 1.0, False),
        (1.3, -2.0, -2.6, False),
        (0.5, -2.0, -1.8, True),
        (0.95, -2.0, -1.9, False),
    ],
)
def test_the_surrogate_by_hand(value, adv, gain, flat):
    r, a = torch.tensor([value], requires_grad=True), torch.tensor([adv])
    result = surrogate(r, a, 0.1, 0.2)
    assert result.item() == pytest.approx(gain)
    assert clipped(r, a, 0.1, 0.2).item() is flat
    assert torch.autograd.grad(result.sum(), r)[0].item() == pytest.approx(0.0 if flat else adv)


@pytest.mark.parametrize(
    ("value", "adv", "gain", "flat"),
    [(2.9, -2.0, -5.8, False), (3.1, -2.0, -6.0, True), (100.0, -2.0, -6.0, True), (3.1, 2.0, 2.4, True)],
)
def test_the_dual_clip_bounds_the_ratio_where_the_advantage_is_negative(value, adv, gain, flat):
    r, a = torch.tensor([value], requires_grad=True), torch.tensor([adv])
    result = surrogate(r, a, 0.1, 0.2, 3.0)
    assert result.item() == pytest.approx(gain)
    assert clipped(r, a, 0.1, 0.2, 3.0).item() is flat
    assert torch.autograd.grad(result.sum(), r)[0].item() == pytest.approx(0.0 if flat else adv)
    assert clipped(r, a, 0.1, 0.2).item() is (adv > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [-30.0, -10.1, -9.9, 9.9, 10.1, 30.0])
@pytest.mark.parametrize("adv", [-1.0, 1.0])
def test_where_the_ratio_is_clamped_it_counts_as_clipped(distance, adv, dtype):
    logp = torch.tensor([distance], dtype=dtype, requires_grad=True)
    r, a = ratio(logp, torch.zeros(1, dtype=dtype)), torch.tensor([adv], dtype=dtype)
    gradient = torch.autograd.grad(surrogate(r, a, 0.1, 0.2).sum(), logp)[0]
    assert clipped(r, a, 0.1, 0.2).item() is (gradient.item() == 0)


@given(st.floats(0.01, 10), st.floats(-5, 5))
def test_the_surrogate_is_a_lower_bound_and_flat_where_clipped(value, adv):
    r, a = (
        torch.tensor([value], dtype=torch.float64, requires_grad=True),
        torch.tensor([adv], dtype=torch.float64),
    )
    result = surrogate(r, a, 0.1, 0.2)
    assert (result <= r * a).all()
    gradient = torch.autograd.grad(result.sum(), r)[0].item()
    if clipped(r, a, 0.1, 0.2):
        assert gradient == 0
    else:
        assert gradient == pytest.approx(adv)


def test_the_surrogate_clips_each_transition_and_not_their_mean():
    r, a = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0])
    assert surrogate(r, a, 0.1, 0.2).mean().item() == pytest.approx(0.6)
    assert surrogate(r.mean(), a.mean(), 0.1, 0.2).item() == pytest.approx(1.0)


def all_revealed(seed, name=P1):
    """log p of every outcome of a last transition: 3 positions, 3 codes."""
    everything = next_states(3, 3, 3)
    return name.log_prob(0.3 * random_logits(seed, 3, 3).repeat(len(everything.state), 1), everything)


def proposals_of(num_positions, num_codes):
    """Every combination of proposals on a blank canvas of which one position is revealed."""
    everything = torch.cartesian_prod(*[torch.arange(num_codes)] * num_positions).view(-1, num_positions)
    return transition(
        [[MASK] * num_positions] * len(everything), everything.tolist(), [[0]] * len(everything)
    )


def expected_gradient(kl, logits, reference, row):
    """E over the proposals of the penalty's gradient in the logits [positions, codes], and of its value."""
    many = len(row.state)
    leaf = logits.clone().requires_grad_()
    chance = AR.log_prob(leaf.detach().repeat(many, 1), row).exp()
    value = (chance * KL[kl](leaf.repeat(many, 1), reference.repeat(many, 1), row)).sum()
    return torch.autograd.grad(value, leaf)[0], value.detach()


def closed_form(logits, reference, reverse):
    """KL(policy || reference), or the reverse, of all positions together, and its gradient."""
    leaf = logits.clone().requires_grad_()
    p, q = leaf.log_softmax(-1), reference.log_softmax(-1)
    value = (q.exp() * (q - p)).sum() if reverse else (p.exp() * (p - q)).sum()
    return torch.autograd.grad(value, leaf)[0], value.detach()


@pytest.mark.parametrize(("kl", "reverse"), [("exact", False), ("k2", False), ("k3", True)])
def test_the_direction_of_each_penalty_by_enumeration(kl, reverse):
    logits, reference = 0.4 * random_logits(0, 3, 3), 0.4 * random_logits(1, 3, 3)
    found, value = expected_gradient(kl, logits, reference, proposals_of(3, 3))
    wanted, _ = closed_form(logits, reference, reverse)
    other, _ = closed_form(logits, reference, not reverse)
    torch.testing.assert_close(found, wanted)
    assert (found - other).abs().max() > 0.01
    if kl != "k2":
        torch.testing.assert_close(value, closed_form(logits, reference, False)[1])


@pytest.mark.parametrize("kl", ["exact", "k2", "k3"])
def test_the_penalty_holds_over_a_thousand_positions(kl):
    # a drift of 0.02 nats a token is 20 nats a transition: beyond any clamp of the sum
    num_tokens, num_codes = 1024, 4
    reference = torch.zeros(num_tokens, num_codes)
    pulled = torch.tensor([[0.02, 0.0, 0.0, 0.0]]).repeat(num_tokens, 1).requires_grad_()
    row = transition([[MASK] * num_tokens], [[0] * num_tokens], [list(range(num_tokens))])
    value = KL[kl](pulled, reference, row)
    gradient = torch.autograd.grad(value.sum(), pulled)[0]
    assert 0 < value.item() < 1
    assert (gradient[:, 0] > 0).all()
    assert gradient.abs().max() < 0.1


@pytest.mark.parametrize("kl", ["k2", "k3"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_proposal_far_from_the_reference_still_pulls_and_not_without_bound(kl, sign):
    for drift in (9.9, 15.0, 60.0):
        leaf = torch.tensor([[0.0, -sign * drift]], requires_grad=True)
        row = transition([[MASK]], [[1]], [[0]])
        value = KL[kl](leaf, torch.zeros(1, 2), row)
        gradient = torch.autograd.grad(value.sum(), leaf)[0]
        assert value.isfinite().all()
        assert 0 < gradient.abs().max() <= max(MAX_WEIGHT, drift) or leaf[0, 1] > 0


@pytest.mark.parametrize("kl", ["exact", "k2", "k3"])
def test_the_penalty_is_zero_with_zero_gradient_at_the_reference_alone(kl):
    logits = random_logits(0, 8, 3).requires_grad_()
    at_home = KL[kl](logits, logits.detach(), MIXED)
    assert (at_home == 0).all()
    assert torch.autograd.grad(at_home.sum(), logits)[0].abs().max() < 1e-12
    assert (KL[kl](logits, random_logits(1, 8, 3), MIXED) > 0).all()


def test_exact_kl_by_hand():
    logits, reference = random_logits(0, 8, 3), random_logits(1, 8, 3)
    p, q = logits.softmax(-1), reference.softmax(-1)
    per_position = (p * (p / q).log()).sum(-1)
    sizes = MIXED.masked.sum(dim=1).tolist()
    expected = torch.stack([part.sum() for part in per_position.split(sizes)])
    torch.testing.assert_close(kl_exact(logits, reference, MIXED), expected)


def test_exact_kl_is_the_transitions_where_all_is_revealed():
    logp, reference = all_revealed(0), all_revealed(1)
    row = replace(next_states(3, 3, 3), state=torch.full((1, 3), MIXED.mask_id))
    exact = kl_exact(0.3 * random_logits(0, 3, 3), 0.3 * random_logits(1, 3, 3), row)
    torch.testing.assert_close(exact.squeeze(), (logp.exp() * (logp - reference)).sum())


def test_exact_kl_is_no_bound_where_the_weights_also_decide_the_order():
    # two positions that swap ranks: the proposals hardly change, the next state does
    p, q = torch.tensor([[0.60, 0.40], [0.59, 0.41]]).log(), torch.tensor([[0.59, 0.41], [0.60, 0.40]]).log()
    everything = next_states(2, 2, 1)
    many = len(everything.state)
    logp, reference = (P1.log_prob(x.repeat(many, 1), everything) for x in (p, q))
    transition_kl = (logp.exp() * (logp - reference)).sum()
    row = replace(everything, state=torch.full((1, 2), MIXED.mask_id))
    assert kl_exact(p, q, row).item() < 1e-3 < 0.1 < transition_kl.item()


def test_exact_kl_has_a_gradient_away_from_the_reference_only():
    logits = random_logits(0, 8, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: kl_exact(x, random_logits(1, 8, 3), MIXED), logits)
    at_home = torch.autograd.grad(kl_exact(logits, logits.detach(), MIXED).sum(), logits)[0]
    torch.testing.assert_close(at_home, torch.zeros_like(at_home))


def test_expected_ratio_under_the_old_policy_is_one():
    for name in (AR, P1):
        old, new = all_revealed(0, name), all_revealed(1, name)
        assert (old.exp() * ratio(new, old)).sum().item() == pytest.approx(1)
