import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import PROMPTS, rowwise, toy

from maskrl.errors import RecipeError
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.grpo.rollout import join, rollout
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.unmask import Rule, unmask
from maskrl.types import StepIndex, Stream


def paint(generator, streams, num_steps=3, guidance=0.0, prompts=None, **sampling):
    condition = generator.encode(prompts or [PROMPTS[i % 4] for i in range(len(streams))])
    resolved = resolve(SamplingConfig(**sampling), generator.spec)
    return rollout(generator, condition, streams, num_steps, resolved, guidance)


def streams(count, seed=0):
    return [Stream(seed).child("image", i) for i in range(count)]


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in vars(a) if name != "mask_id")


@pytest.mark.parametrize("num_steps", [1, 3, 6])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_the_record_is_a_chain_of_steps_from_blank_to_finished(num_steps, guidance):
    generator = toy()
    record = paint(generator, streams(5), num_steps, guidance)
    counts = unmask_counts(6, num_steps, "cosine")
    assert (record.state[:, 0] == record.mask_id).all()
    for t in range(num_steps):
        step = record.transitions(torch.arange(5), torch.full((5,), t))
        after = record.tokens if t + 1 == num_steps else record.state[:, t + 1]
        assert torch.equal(after, torch.where(step.revealed, step.proposals, step.state))
        assert torch.equal(step.proposals[~step.masked], step.state[~step.masked])
        assert not (step.revealed & ~step.masked).any()
        ranks = step.reveal_rank.sort(dim=1).values[:, -counts[t] :]
        assert torch.equal(ranks, torch.arange(counts[t]).expand(5, -1))
        assert (step.revealed.sum(dim=1) == counts[t]).all()
    assert ((record.tokens >= 0) & (record.tokens < 4)).all()


def test_threshold_and_entropy_are_those_of_the_behaviour_policy():
    generator = toy()
    record = paint(generator, streams(4), guidance=0.7)
    condition = generator.encode(PROMPTS)
    for t in range(3):
        step = record.transitions(torch.arange(4), torch.full((4,), t))
        p_BNV = generator.logits(step.state, condition, step.step, rowwise(0.7, 4)).softmax(-1)
        chosen_BN = p_BNV.gather(-1, step.proposals.clamp(max=3)[..., None]).squeeze(-1)
        for b in range(4):
            assert step.threshold[b].item() == pytest.approx(chosen_BN[b][step.revealed[b]].min().item())
            entropy = -(p_BNV[b] * p_BNV[b].log()).sum(-1)[step.masked[b]].mean()
            assert record.entropy[b, t].item() == pytest.approx(entropy.item())


def test_the_entropy_is_exact_where_codes_have_no_probability():
    logits = torch.tensor([[0.0, 0.0, -torch.inf, -2000.0], [0.0, -torch.inf, -torch.inf, -torch.inf]])
    made = unmask(logits, torch.full((1, 2), 99), torch.rand(1, 2, 2), Rule(1, 1.0), mask_id=99)
    assert made.entropy.tolist() == pytest.approx([math.log(2) / 2])  # two of four, and one of four


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(deadline=None, max_examples=20)
def test_an_image_depends_on_its_own_stream_alone(seed, chunk):
    generator = toy()
    together = paint(generator, streams(6, seed), prompts=[PROMPTS[0]] * 6)
    parts = [
        paint(
            generator,
            streams(6, seed)[i : i + chunk],
            prompts=[PROMPTS[0]] * len(range(i, min(i + chunk, 6))),
        )
        for i in range(0, 6, chunk)
    ]
    apart = join(parts)
    for name in ("state", "proposals", "reveal_rank", "floored", "tokens"):
        assert torch.equal(getattr(together, name), getattr(apart, name))
    torch.testing.assert_close(together.threshold, apart.threshold)
    torch.testing.assert_close(together.entropy, apart.entropy)


def test_equal_streams_paint_equal_images_and_others_do_not():
    record = paint(toy(sharpness=0.5), [Stream(1), Stream(1), Stream(2)], prompts=[PROMPTS[0]] * 3)
    assert torch.equal(record.proposals[0], record.proposals[1])
    assert not torch.equal(record.proposals[0], record.proposals[2])


def test_a_second_rollout_repeats_the_first_and_leaves_the_global_rng_alone():
    generator, before = toy(), torch.get_rng_state()
    assert same(paint(generator, streams(3)), paint(generator, streams(3)))
    assert torch.equal(before, torch.get_rng_state())


def test_the_network_is_asked_for_masked_positions_only():
    asked = []

    class Asked(type(toy())):
        def logits(self, tokens, condition, step, guidance, positions=None):
            logits = super().logits(tokens, condition, step, guidance, positions)
            asked.append((len(logits), int(positions.sum())))
            return logits

    generator = Asked(toy().config)
    paint(generator, streams(2), num_steps=3)
    counts = unmask_counts(6, 3, "cosine")
    left = [6, 6 - counts[0], counts[2]]
    assert asked == [(2 * n, 2 * n) for n in left]


def test_more_steps_than_tokens_is_an_error():
    with pytest.raises(RecipeError, match=r"num_steps = 7, but an image has 6 tokens"):
        paint(toy(), streams(1), num_steps=7)


def blank(batch, num_tokens=5, mask_id=9):
    return torch.full((batch, num_tokens), mask_id)


@pytest.mark.parametrize("num_revealed", [1, 2, 5])
def test_ties_go_to_the_lowest_index(num_revealed):
    step = unmask(torch.zeros(10, 3), blank(2), torch.rand(2, 2, 5), Rule(num_revealed, 0.0), 9)
    assert torch.equal(step.reveal_rank[0, :num_revealed], torch.arange(num_revealed))
    assert (step.reveal_rank[:, num_revealed:] == -1).all()


def test_without_noise_the_most_confident_are_revealed_in_order():
    torch.manual_seed(0)
    logits_BNV = torch.randn(50, 5, 4, dtype=torch.float64)
    step = unmask(logits_BNV.flatten(0, 1), blank(50), torch.rand(50, 2, 5), Rule(3, 0.0), 9)
    logp_BN = logits_BNV.log_softmax(-1).gather(-1, step.proposals[..., None]).squeeze(-1)
    order_BN = logp_BN.argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(step.reveal_rank.gather(1, order_BN), torch.arange(3).expand(50, 3))


def test_noise_of_temperature_one_picks_positions_by_their_probability():
    # Gumbel-top-1 on log p(y) picks position i with probability p_i(y_i) / sum of p_j(y_j)
    p = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    logits_NV = torch.stack([p, 1 - p], dim=1).log()
    count = 40_000
    uniform = torch.rand(count, 2, 3, generator=torch.Generator().manual_seed(1))
    uniform[:, 0] = 0.0  # always code 0
    step = unmask(logits_NV.repeat(count, 1), blank(count, 3), uniform, Rule(1, 1.0), 9)
    assert (step.proposals == 0).all()
    shares = (step.reveal_rank == 0).double().mean(dim=0)
    torch.testing.assert_close(shares, p / p.sum(), atol=0.01, rtol=0)


def test_proposals_follow_the_distribution_and_codes_of_no_probability_never_come():
    p = torch.tensor([0.0, 0.2, 0.5, 0.3, 0.0])
    uniform = torch.rand(1, 2, 50_000, generator=torch.Generator().manual_seed(0))
    uniform[0, 0, :2] = torch.tensor([0.0, 1 - 2**-24])
    step = unmask(p.log().expand(50_000, 5), blank(1, 50_000), uniform, Rule(1, 0.0), 9)
    assert step.proposals[0, :2].tolist() == [1, 3]
    shares = step.proposals[0].bincount(minlength=5) / 50_000
    assert shares[0] == shares[4] == 0
    torch.testing.assert_close(shares, p, atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [None, torch.tensor([0.7], dtype=torch.float64)])
@pytest.mark.parametrize("portion", [1, 7, 40, 119, 120, 10**6])
def test_portions_of_positions_change_nothing(dtype, temperature, portion):
    """120 positions of three rows, some of them known, and 37 codes, which fill no whole vector of a CPU."""
    rng = torch.Generator().manual_seed(0)
    state = torch.where(torch.rand(3, 50, generator=rng).argsort(dim=1) < 40, 99, 5)
    logits = (4 * torch.randn(120, 37, generator=rng)).to(dtype)
    uniform = torch.rand(3, 2, 50, generator=rng)
    whole, parts = (
        unmask(logits, state, uniform, Rule(9, 1.0, temperature), 99, record_sets=True, portion=size)
        for size in (None, portion)
    )
    assert same(whole, parts)
    assert whole.sets.any()


def test_noise_is_finite_where_the_uniform_is_zero():
    step = unmask(torch.zeros(5, 3), blank(1), torch.zeros(1, 2, 5), Rule(2, 1.0), 9)
    assert step.reveal_rank.tolist() == [[0, 1, -1, -1, -1]]


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_floored_means_that_no_code_could_have_been_remasked_without_noise(seed, ties):
    rng = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(5, 3, generator=rng, dtype=torch.float64) * 2
    logits_NV = logits_NV.round() if ties else logits_NV
    step = unmask(logits_NV, blank(1), torch.rand(1, 2, 5, generator=rng), Rule(2, 3.0), 9)
    log_p_NV = logits_NV.log_softmax(-1)
    revealed = [i for i in range(5) if step.reveal_rank[0, i] >= 0]
    confidence = {i: log_p_NV[i, step.proposals[0, i]] for i in revealed}
    lowest = min(confidence.values())
    last = max(i for i in revealed if confidence[i] == lowest)
    for j in range(5):
        possible = (log_p_NV[j] < lowest) | ((log_p_NV[j] == lowest) & (j > last))
        assert step.floored[0, j].item() == (j not in revealed and not possible.any())


def test_floored_happens_and_only_with_noise():
    generator = toy(sharpness=4.0)
    hot = paint(generator, streams(200), temperature_rule="linear", tau_init=5.0)
    cold = paint(generator, streams(200), tau_init=0.0)
    assert hot.floored.any()
    assert not cold.floored.any()


def test_the_recorded_threshold_rounds_back_to_the_log_probability():
    logits = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0)) * 8
    step = unmask(logits, blank(1000), torch.rand(1000, 2, 5), Rule(2, 1.0), 9)
    logp = logits.log_softmax(-1).gather(-1, step.proposals.flatten()[:, None]).view(1000, 5)
    lowest = logp.masked_fill(step.reveal_rank < 0, torch.inf).amin(dim=1)
    assert torch.equal(step.threshold.log().float(), lowest)


def test_guidance_of_zero_runs_one_branch_and_other_guidance_changes_the_images():
    generator = toy()
    assert not torch.equal(
        paint(generator, streams(8)).proposals, paint(generator, streams(8), guidance=4.0).proposals
    )
    null = generator.encode(PROMPTS).__class__(torch.zeros(1, dtype=torch.long))
    tokens, at = blank(1, 6, 4), StepIndex(torch.zeros(1, dtype=torch.long), 3)
    conditional = generator.encode(PROMPTS[:1])
    w = 1.5
    mixed = (1 + w) * generator.logits(tokens, conditional, at, rowwise(0)) - w * generator.logits(
        tokens, null, at, rowwise(0)
    )
    torch.testing.assert_close(generator.logits(tokens, conditional, at, rowwise(w)), mixed)


def test_defaults_are_the_generators_own():
    sampling = resolve(SamplingConfig(tau_init=0.5), toy().spec)
    assert (sampling.tau_init, sampling.schedule, sampling.guidance_train, sampling.guidance_eval) == (
        0.5,
        "cosine",
        0.0,
        1.5,
    )
