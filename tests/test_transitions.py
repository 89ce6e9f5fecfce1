import math
from dataclasses import replace
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrl.grpo.confidence import border, pack_bits, remaskable, unpack_bits
from maskrl.grpo.unmask import Rule, unmask
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import LOG_FLOOR, PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import StepIndex, Transition

AR, P2 = Ar(Ar.Config()), PTheta2(PTheta2.Config())
P1, RECORDED = PTheta1(PTheta1.Config()), PTheta1(PTheta1.Config(threshold="recorded"))
KEPT, BORDER = (PTheta1(PTheta1.Config(threshold=name)) for name in ("kept_set", "border"))
MASK = 99


def random_logits(seed, num_masked, num_codes, ties=False):
    logits = 2 * torch.randn(
        num_masked, num_codes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    if ties:  # whole numbers, and one row that repeats another: equal probabilities at several positions
        logits = logits.round()
        logits[-1] = logits[0].flip(0)
    return logits


def transition(state, proposals, revealed, **changes):
    """B rows from nested lists; ``revealed`` lists positions, most confident first."""
    rank = torch.full((len(state), len(state[0])), -1)
    for row, positions in enumerate(revealed):
        rank[row, positions] = torch.arange(len(positions))
    made = Transition(
        state=torch.tensor(state),
        proposals=torch.tensor(proposals),
        reveal_rank=rank,
        floored=torch.zeros_like(rank, dtype=torch.bool),
        threshold=torch.ones(len(state), dtype=torch.float64),
        tau=torch.zeros(len(state)),
        step=StepIndex(torch.zeros(len(state), dtype=torch.long), 1),
        mask_id=MASK,
    )
    return replace(made, **changes)


def next_states(num_masked, num_codes, num_revealed):
    """Every next state of a blank canvas: all choices of positions, all codes there."""
    rows = []
    for positions in combinations(range(num_masked), num_revealed):
        for codes in product(range(num_codes), repeat=num_revealed):
            proposals = [0] * num_masked
            for position, code in zip(positions, codes, strict=True):
                proposals[position] = code
            rows.append((proposals, list(positions)))
    proposals, revealed = zip(*rows, strict=True)
    return transition([[MASK] * num_masked] * len(rows), list(proposals), revealed)


def key(proposals, revealed):
    return tuple(int(code) if shown else MASK for code, shown in zip(proposals, revealed, strict=True))


def outcomes(logits, num_revealed):
    """The probability of each next state under the sampler without noise: all proposals, enumerated."""
    num_masked, num_codes = logits.shape
    p_NV = logits.softmax(-1)
    all_BN = torch.tensor(list(product(range(num_codes), repeat=num_masked)))
    low_NV = p_NV.cumsum(-1) - p_NV / 2  # the middle of each code's interval
    uniform = torch.stack([low_NV[torch.arange(num_masked), all_BN], torch.full(all_BN.shape, 0.5)], dim=1)
    blank = torch.full(all_BN.shape, MASK)
    step = unmask(logits.repeat(len(all_BN), 1), blank, uniform, Rule(num_revealed, 0.0), MASK)
    assert torch.equal(step.proposals, all_BN)
    chances = p_NV[torch.arange(num_masked), all_BN].prod(dim=1)
    table = {}
    for proposals, shown, chance in zip(all_BN, step.reveal_rank >= 0, chances, strict=True):
        state = key(proposals, shown)
        table[state] = table.get(state, 0.0) + float(chance)
    return table


canvases = [(n, v, k) for n in (3, 4) for v in (3, 4) for k in range(1, n + 1)]


@pytest.mark.parametrize(("num_masked", "num_codes", "num_revealed"), canvases)
@pytest.mark.parametrize("ties", [False, True])
def test_p_theta1_is_the_distribution_of_the_next_state(num_masked, num_codes, num_revealed, ties):
    everything = next_states(num_masked, num_codes, num_revealed)
    for seed in range(3):
        logits = random_logits(seed, num_masked, num_codes, ties)
        probability = P1.log_prob(logits.repeat(len(everything.state), 1), everything).exp()
        assert probability.sum().item() == pytest.approx(1, abs=1e-12)
        sampler = outcomes(logits, num_revealed)
        for p, codes, shown in zip(probability, everything.proposals, everything.revealed, strict=True):
            assert p.item() == pytest.approx(sampler.get(key(codes, shown), 0.0), abs=1e-12)


@given(
    st.lists(st.sampled_from([-20.0, 0.0, 0.5, 1.0, 20.0, 200.0]), min_size=9, max_size=9), st.integers(1, 3)
)
@settings(deadline=None)
def test_p_theta1_sums_to_one_on_any_ties(values, num_revealed):
    everything = next_states(3, 3, num_revealed)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        logits = torch.tensor(values, dtype=dtype).view(3, 3)
        probability = P1.log_prob(logits.repeat(len(everything.state), 1), everything).exp()
        assert probability.sum().item() == pytest.approx(1, abs=tolerance)


def test_p_theta1_agrees_with_counting_the_real_sampler():
    logits, count = random_logits(7, 4, 3), 200_000
    uniform = torch.rand(count, 2, 4, generator=torch.Generator().manual_seed(3))
    step = unmask(logits.repeat(count, 1), torch.full((count, 4), MASK), uniform, Rule(2, 0.0), MASK)
    shown = torch.where(step.reveal_rank >= 0, step.proposals, MASK)
    states, counts = shown.unique(dim=0, return_counts=True)
    seen = {tuple(state): n for state, n in zip(states.tolist(), counts.tolist(), strict=True)}
    everything = next_states(4, 3, 2)
    probability = P1.log_prob(logits.repeat(len(everything.state), 1), everything).exp().tolist()
    for p, codes, revealed in zip(probability, everything.proposals, everything.revealed, strict=True):
        assert abs(seen.get(key(codes, revealed), 0) - count * p) <= 5 * (count * p * (1 - p)) ** 0.5 + 1e-9


def test_the_current_threshold_is_normalised_off_policy_and_the_recorded_one_is_not():
    old, new = random_logits(0, 3, 4), random_logits(1, 3, 4)
    everything = next_states(3, 4, 1)
    many = len(everything.state)
    old_logp = P1.log_prob(old.repeat(many, 1), everything)
    chosen_BN = old.log_softmax(-1).expand(many, 3, 4).gather(-1, everything.proposals[..., None]).squeeze(-1)
    lowest = chosen_BN.masked_fill(~everything.revealed, torch.inf).amin(dim=1)
    recorded = replace(everything, threshold=lowest.exp())
    current_sum = P1.log_prob(new.repeat(many, 1), recorded).exp().sum().item()
    recorded_sum = RECORDED.log_prob(new.repeat(many, 1), recorded).exp().sum().item()
    torch.testing.assert_close(RECORDED.log_prob(old.repeat(many, 1), recorded), old_logp)
    assert current_sum == pytest.approx(1)
    assert abs(recorded_sum - 1) > 0.05


def with_sets(everything, logits):
    """The sets {k} that a rollout under these logits would have recorded with every next state."""
    many, num_masked = everything.state.shape
    log_p = logits.log_softmax(-1).repeat(many, 1)
    logp_BN = everything.unpack(
        log_p.gather(1, everything.pack(everything.proposals)[:, None])[:, 0], torch.inf
    )
    threshold_B, behind_BN = border(logp_BN, everything.revealed)
    spread = threshold_B[:, None].expand(many, num_masked)
    flags = remaskable(log_p, everything.pack(spread), everything.pack(behind_BN))
    return replace(everything, sets=pack_bits(flags).view(many, num_masked, -1))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("num_revealed", [1, 2])
def test_the_kept_set_is_p_theta1_on_policy_and_normalised_off_policy(num_revealed, ties):
    everything = next_states(3, 4, num_revealed)
    many = len(everything.state)
    for seed in range(5):
        old, new = random_logits(seed, 3, 4, ties), random_logits(seed + 9, 3, 4, ties)
        kept = with_sets(everything, old)
        here = old.clone().requires_grad_()
        same = [name.log_prob(here.repeat(many, 1), kept) for name in (KEPT, P1)]
        torch.testing.assert_close(*same)
        weights = torch.rand(many, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        possible = same[0].detach() > LOG_FLOOR / 2
        gradients = [torch.autograd.grad((x * weights)[possible].sum(), here)[0] for x in same]
        torch.testing.assert_close(*gradients)
        probability = KEPT.log_prob(new.repeat(many, 1), kept).exp()
        assert probability.sum().item() == pytest.approx(1, abs=1e-12)


def test_the_kept_set_does_not_jump_where_p_theta1_does():
    # a code of the remasked position crosses the threshold, 0.3, as the weights move by 0.02
    row = transition([[MASK, MASK]], [[0, 1]], [[0]])
    before = torch.tensor([[0.3, 0.7, 1e-9], [0.29, 0.01, 0.7]]).log().double()
    after = torch.tensor([[0.3, 0.7, 1e-9], [0.31, 0.01, 0.68]]).log().double()
    kept = with_sets(row, before)
    assert abs(P1.log_prob(after, kept) - P1.log_prob(before, kept)).item() > 3
    assert abs(KEPT.log_prob(after, kept) - KEPT.log_prob(before, kept)).item() < 0.1


def test_bits_survive_packing():
    for num_flags in (1, 7, 8, 9, 8192):
        flags = torch.rand(5, num_flags, generator=torch.Generator().manual_seed(num_flags)) < 0.5
        packed = pack_bits(flags)
        assert packed.dtype == torch.uint8
        assert packed.shape == (5, -(-num_flags // 8))
        assert torch.equal(unpack_bits(packed, num_flags), flags)


def test_the_rollout_records_the_sets_it_used():
    logits = random_logits(3, 6, 5).repeat(40, 1)
    uniform = torch.rand(40, 2, 6, generator=torch.Generator().manual_seed(3))
    state = torch.full((40, 6), MASK)
    step = unmask(logits, state, uniform, Rule(2, 0.0), MASK, record_sets=True)
    made = transition(state.tolist(), step.proposals.tolist(), [[]] * 40)
    made = replace(made, reveal_rank=step.reveal_rank, floored=step.floored, sets=step.sets)
    torch.testing.assert_close(KEPT.log_prob(logits, made), P1.log_prob(logits, made))
    assert unmask(logits, state, uniform, Rule(2, 0.0), MASK).sets.numel() == 0


def test_the_border_of_the_noisy_confidence_by_plain_loops():
    logits, tau = random_logits(5, 6, 4).repeat(200, 1), 1.0
    uniform = torch.rand(200, 2, 6, generator=torch.Generator().manual_seed(5))
    step = unmask(logits, torch.full((200, 6), MASK), uniform, Rule(3, tau), MASK)
    made = transition(step.state.tolist(), step.proposals.tolist(), [[]] * 200)
    made = replace(made, reveal_rank=step.reveal_rank, floored=step.floored)
    p = logits.softmax(-1).view(200, 6, 4)
    expected = []
    for b in range(200):
        ranks, codes = step.reveal_rank[b].tolist(), step.proposals[b].tolist()
        last = ranks.index(max(ranks))
        at = p[b, last, codes[last]].item()
        total = 0.0
        for i in range(6):
            if ranks[i] >= 0:
                total += math.log(p[b, i, codes[i]].item())
            else:
                inner = sum(x for x in p[b, i].tolist() if x < at)
                total += math.log(inner) if inner else (0.0 if step.floored[b, i] else LOG_FLOOR)
        expected.append(total)
    found = BORDER.log_prob(logits, made)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert (found - P1.log_prob(logits, made)).abs().max() > 0.5  # with noise it is another threshold
    quiet = unmask(logits, torch.full((200, 6), MASK), uniform, Rule(3, 0.0), MASK)
    calm = replace(made, proposals=quiet.proposals, reveal_rank=quiet.reveal_rank, floored=quiet.floored)
    torch.testing.assert_close(BORDER.log_prob(logits, calm), P1.log_prob(logits, calm))


def test_both_thresholds_have_the_same_gradient_on_policy():
    logits = random_logits(0, 4, 3).repeat(50, 1).requires_grad_()
    uniform = torch.rand(50, 2, 4, generator=torch.Generator().manual_seed(0))
    step = unmask(logits.detach(), torch.full((50, 4), MASK), uniform, Rule(2, 1.0), MASK)
    made = Transition(
        step.state, step.proposals, step.reveal_rank, step.floored, step.threshold, torch.ones(50),
        StepIndex(torch.zeros(50, dtype=torch.long), 2), MASK,
    )  # fmt: skip
    gradient = [torch.autograd.grad(t.log_prob(logits, made).sum(), logits)[0] for t in (P1, RECORDED)]
    torch.testing.assert_close(*gradient)
    assert gradient[0].abs().max() > 0


MIXED = transition(
    [[MASK, 2, MASK, MASK], [1, MASK, 0, 2], [MASK, MASK, MASK, MASK]],
    [[0, 2, 1, 2], [1, 2, 0, 2], [2, 1, 0, 0]],
    [[2], [1], [3, 0]],
)


def test_each_equation_against_plain_loops():
    logits = random_logits(5, 8, 3)
    p_MV, row_of = logits.softmax(-1), MIXED.masked.nonzero().tolist()
    expected = {AR: [0.0] * 3, P1: [0.0] * 3, P2: [0.0] * 3}
    lowest = [1.0] * 3
    for m, (b, i) in enumerate(row_of):
        p = p_MV[m, MIXED.proposals[b, i]].item()
        expected[AR][b] += torch.tensor(p).double().log().item()
        if MIXED.revealed[b, i]:
            lowest[b] = min(lowest[b], p)
            for name in (P1, P2):
                expected[name][b] += torch.tensor(p).double().log().item()
    for m, (b, i) in enumerate(row_of):
        if not MIXED.revealed[b, i]:
            inner = sum(p for p in p_MV[m].tolist() if p < lowest[b])
            expected[P1][b] += torch.tensor(inner).double().log().item() if inner else LOG_FLOOR
    for name, values in expected.items():
        torch.testing.assert_close(name.log_prob(logits, MIXED), torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("name", [AR, P1, P2, RECORDED])
def test_gradients_against_finite_differences(name):
    made = replace(MIXED, threshold=torch.tensor([0.4, 0.3, 0.25], dtype=torch.float64))
    for seed in range(5):
        logits = random_logits(seed, 8, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: name.log_prob(x, made), logits, atol=1e-8)


@pytest.mark.parametrize("name", [AR, P1, P2])
def test_a_row_does_not_depend_on_the_others(name):
    logits = random_logits(2, 8, 3).float()
    together = name.log_prob(logits, MIXED)
    sizes, start = MIXED.masked.sum(dim=1).tolist(), 0
    for b, size in enumerate(sizes):
        alone = transition([MIXED.state[b].tolist()], [MIXED.proposals[b].tolist()], [[]])
        alone = replace(alone, reveal_rank=MIXED.reveal_rank[b : b + 1])
        assert torch.equal(name.log_prob(logits[start : start + size], alone), together[b : b + 1])
        start += size


def test_the_last_transition_is_the_same_for_all():
    last = transition([[MASK, 1, MASK]], [[2, 1, 0]], [[2, 0]])
    logits = random_logits(0, 2, 3)
    values = [name.log_prob(logits, last) for name in (AR, P1, P2)]
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_the_border_is_the_last_revealed_position_that_attains_the_minimum():
    logp = torch.tensor([[-1.0, -1.0, -0.9, -1.0], [-1.0, -1.0, -1.0, -2.0]])
    revealed = torch.tensor([[True, False, True, False], [True, False, True, False]])
    threshold, behind = border(logp, revealed)
    assert threshold.tolist() == [-1.0, -1.0]
    assert behind.tolist() == [[False, True, True, True], [False, False, False, True]]


def test_floored_positions_are_dropped():
    floored = torch.tensor([[False, False, True]])
    row = transition([[MASK] * 3], [[0, 1, 2]], [[0]], floored=floored)
    logits = random_logits(3, 3, 3)
    kept = transition([[MASK, MASK, 0]], [[0, 1, 0]], [[0]])
    torch.testing.assert_close(P1.log_prob(logits, row), P1.log_prob(logits[:2], kept))


def test_an_empty_set_is_finite_and_has_no_gradient():
    # position 0 is revealed with p = 0.1; every code of position 1 is likelier
    logits = torch.tensor([[0.1, 0.9], [0.5, 0.5]]).log().requires_grad_()
    row = transition([[MASK, MASK]], [[0, 0]], [[0]])
    value = P1.log_prob(logits, row)
    assert value.item() == pytest.approx(torch.tensor(0.1).log().item() + LOG_FLOOR)
    gradient = torch.autograd.grad(value.sum(), logits)[0]
    assert gradient.isfinite().all()
    assert (gradient[1] == 0).all()
    assert (gradient[0] != 0).all()


@pytest.mark.parametrize("name", [AR, P1, P2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_extreme_logits_stay_finite_forward_and_backward(name, dtype):
    logits = torch.tensor([[300.0, 0.0, -300.0]] * 8, dtype=dtype).requires_grad_()
    value = name.log_prob(logits, MIXED)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_the_result_has_the_precision_of_the_logits_at_least():
    assert P1.log_prob(random_logits(0, 8, 3), MIXED).dtype == torch.float64


def test_the_real_sampler_never_makes_a_transition_of_probability_zero():
    for seed in range(20):
        logits = random_logits(seed, 5, 4, ties=seed % 2 == 0).float().repeat(100, 1)
        uniform = torch.rand(100, 2, 5, generator=torch.Generator().manual_seed(seed))
        for tau in (0.0, 2.0):
            step = unmask(logits, torch.full((100, 5), MASK), uniform, Rule(2, tau), MASK)
            made = transition(step.state.tolist(), step.proposals.tolist(), [[]] * 100)
            made = replace(made, reveal_rank=step.reveal_rank, floored=step.floored)
            assert P1.log_prob(logits, made).min() > LOG_FLOOR / 2
