from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_transitions import AR, MIXED, P1, next_states, random_logits

from maskrl.grpo.objective import MAX_LOG_RATIO, clipped, kl_exact, kl_k3, ratio, surrogate


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


def test_k3_is_zero_with_zero_gradient_at_the_reference_and_positive_elsewhere():
    logp = torch.tensor([-3.0, -3.0, -3.0], requires_grad=True)
    value = kl_k3(logp, torch.tensor([-3.0, -2.0, -500.0]))
    assert value[0] == 0
    assert (value[1:] > 0).all()
    gradient = torch.autograd.grad(value.sum(), logp)[0]
    assert gradient[0] == 0
    assert gradient[1] == pytest.approx(1 - torch.e)
    assert gradient.isfinite().all()


def all_revealed(seed, name=P1):
    """log p of every outcome of a last transition: 3 positions, 3 codes."""
    everything = next_states(3, 3, 3)
    return name.log_prob(0.3 * random_logits(seed, 3, 3).repeat(len(everything.state), 1), everything)


def test_k3_averages_to_the_kl_of_a_normalised_transition():
    logp, reference = all_revealed(0), all_revealed(1)
    kl = (logp.exp() * (logp - reference)).sum()
    assert kl > 0.01
    torch.testing.assert_close((logp.exp() * kl_k3(logp, reference)).sum(), kl)


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
