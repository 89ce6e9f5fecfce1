"""One test per defect: those of the paper's released code (docs/equations.md), then those found elsewhere.

The exactness of each equation is tested beside its module: test_transitions, test_objective, test_update.
"""

import copy

import pytest
import torch
from test_transitions import AR, MASK, MIXED, P1, P2, random_logits, transition
from toy import PROMPTS, gradients, rowwise, toy, toy_halves

from maskrl.grpo.rollout import rollout
from maskrl.grpo.temperature import temperatures
from maskrl.grpo.update import collect, learn
from maskrl.types import StepIndex


def optimizer(generator, lr=3e-2):
    return torch.optim.SGD(generator.module.parameters(), lr=lr)


def test_1_the_threshold_is_a_probability_and_the_two_candidates_differ():
    # released: min(cs) in a Bool tensor, so every code passes p < True and the inner sum is 1
    batch = collect(toy_halves().actor, PROMPTS, 0)
    threshold = batch.trajectory.threshold
    assert threshold.is_floating_point()
    assert ((threshold > 0) & (threshold <= 1)).all()
    assert len(threshold.unique()) > 3
    logits = random_logits(0, 8, 3)
    assert (P1.log_prob(logits, MIXED) < P2.log_prob(logits, MIXED)).any()


def test_2_the_ratio_moves_with_the_weights_and_the_clip_acts_on_each_transition():
    # released: exp(s - s.detach()), always 1; and min taken after the mean over images
    generator = toy()
    halves = toy_halves(generator, config={"num_updates": 4}, optimizer=optimizer(generator, lr=0.05))
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert metrics["ratio_min"] < 1 < metrics["ratio_max"]
    assert 0 < metrics["clip_fraction"] < 1


@pytest.mark.parametrize("kl", ["k3", "exact"])
def test_3_the_kl_has_a_value_and_a_gradient(kl):
    # released: compares s with its own detached value
    config = {"kl_coef": 1.0, "kl": kl}
    halves, plain = toy_halves(reference=toy(seed=1), config=config), toy_halves()
    batch = collect(halves.actor, PROMPTS, 0)
    assert learn(halves.learner, batch)["kl"] > 0
    learn(plain.learner, batch)
    assert not torch.allclose(gradients(halves.generator), gradients(plain.generator), rtol=1e-2)


def test_4_the_temperature_compounds_by_rule_and_not_by_history():
    # released: tau is multiplied in place inside the loop
    assert temperatures(4, "compound", 1.0) == pytest.approx([3 / 4, 3 / 8, 3 / 32, 0])
    halves = toy_halves(sampling={"temperature_rule": "compound"})
    taus = [collect(halves.actor, PROMPTS, update).trajectory.tau for update in (0, 1)]
    assert torch.equal(*taus)
    assert taus[0].tolist() == pytest.approx(temperatures(3, "compound", 1.0))


def test_5_batches_of_images_are_painted_and_scored_together():
    # released: squeeze(0), so one image at a time
    halves = toy_halves(micro_batch=100)
    batch = collect(halves.actor, PROMPTS, 0)
    learn(halves.learner, batch)
    rows = [rows for rows, _ in halves.generator.calls]
    assert rows == [12] * 3 + [36]
    one = collect(halves.but(rollout_batch=1).actor, PROMPTS, 0)
    assert torch.equal(one.trajectory.tokens, batch.trajectory.tokens)


def test_6_only_image_codes_at_masked_positions_are_computed():
    # released: the head over 58,498 words at every position, then sliced
    generator = toy()
    state = torch.tensor([[0, 4, 1, 4, 4, 2], [4, 4, 4, 1, 4, 4]])
    at = StepIndex(torch.tensor([1, 0]), 3)
    condition = generator.encode(PROMPTS[:2])
    packed = generator.logits(state, condition, at, rowwise(0.0, 2), positions=state == 4)
    dense = generator.logits(state, condition, at, rowwise(0.0, 2))
    assert packed.shape == (3 + 5, 4)
    torch.testing.assert_close(packed, dense[state == 4])


def test_7_no_logarithm_of_zero():
    # released: log(sum of nothing)
    logits = torch.tensor([[0.0, -200.0], [0.0, 0.0], [0.0, -0.1]]).requires_grad_()
    row = transition([[MASK] * 3], [[1, 0, 1]], [[0]])
    value = P1.log_prob(logits, row)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_dropout_is_off_while_painting_and_scoring():
    halves = toy_halves(config={"num_updates": 2})
    halves.generator.module.train()
    batch = collect(halves.actor, PROMPTS, 0)
    assert torch.equal(batch.trajectory.tokens, collect(toy_halves().actor, PROMPTS, 0).trajectory.tokens)
    halves.generator.module.train()
    metrics = learn(halves.learner, batch)  # the learning rate is 0
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1


def test_the_global_random_numbers_are_neither_read_nor_reset():
    halves = toy_halves(config={"num_updates": 2})
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batch = collect(halves.actor, PROMPTS, 0)
    learn(halves.learner, batch)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert torch.equal(batch.trajectory.tokens, collect(halves.actor, PROMPTS, 0).trajectory.tokens)


@pytest.mark.parametrize("micro_batch", [1, 100])
@pytest.mark.parametrize("num_updates", [1, 3])
def test_micro_batches_are_not_steps(micro_batch, num_updates):
    generator = toy()
    steps = []

    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            steps.append(1)
            return super().step(closure)

    counting = Counting(generator.module.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(counting, lambda update: 1 / (1 + update))
    halves = toy_halves(
        generator,
        optimizer=counting,
        lr_scheduler=scheduler,
        micro_batch=micro_batch,
        config={"num_updates": num_updates},
    )
    batch = collect(halves.actor, PROMPTS, 0)
    assert learn(halves.learner, batch)["learning_rate"] == pytest.approx(1e-3)
    assert len(steps) == num_updates
    assert counting.param_groups[0]["lr"] == pytest.approx(1e-3 / 2)


def test_guidance_of_the_rollout_is_scored_with_guidance():
    same, not_same = (
        toy_halves(sampling={"guidance_train": 2.0, "guidance_in_loss": mode})
        for mode in ("same", "rollout_only")
    )
    batch = collect(same.actor, PROMPTS, 0)
    for halves in (same, not_same):
        learn(halves.learner, batch)
    assert not torch.allclose(gradients(same.generator), gradients(not_same.generator), rtol=0.1)


@pytest.mark.parametrize("name", [AR, P1, P2])
def test_sums_over_a_thousand_tokens_keep_their_precision_in_bf16(name):
    # summed in bf16 the error is tens of nats
    logits = 3 * torch.randn(1024, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    state = torch.full((1, 1024), MASK)
    proposals = torch.randint(0, 64, (1, 1024), generator=torch.Generator().manual_seed(1))
    row = transition(state.tolist(), proposals.tolist(), [list(range(512))])
    value, exact = name.log_prob(logits, row), name.log_prob(logits.double(), row)
    assert value.dtype == torch.float32
    assert abs(value.item() - exact.item()) < 0.05


def test_scores_reproduce_the_rollouts_own_probabilities():
    # the scorer sees the same logits as the sampler: its p of the proposals gives back the recorded threshold
    halves = toy_halves(sampling={"guidance_train": 1.0})
    batch = collect(halves.actor, PROMPTS, 0)
    for t in range(3):
        row = batch.trajectory.transitions(torch.arange(12), torch.full((12,), t))
        condition = batch.condition.select(torch.arange(12) // 3)
        logits = halves.generator.logits(
            row.state, condition, row.step, rowwise(1.0, 12), positions=row.masked
        )
        p = row.unpack(logits.softmax(-1).gather(-1, row.pack(row.proposals)[:, None]).squeeze(-1))
        torch.testing.assert_close(p.masked_fill(~row.revealed, 2.0).amin(dim=1), row.threshold)


def test_a_rollout_ignores_gradients_and_leaves_the_network_as_it_was():
    halves = toy_halves()
    before = copy.deepcopy(halves.generator.module.state_dict())
    condition = halves.generator.encode(PROMPTS)
    streams = [halves.actor.stream.child(i) for i in range(4)]
    trajectory = rollout(halves.generator, condition, streams, 3, halves.algorithm.sampling, 0.0)
    assert not trajectory.threshold.requires_grad
    assert all(
        torch.equal(before[name], value) for name, value in halves.generator.module.state_dict().items()
    )
