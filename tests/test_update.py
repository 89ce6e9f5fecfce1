import copy
import math
import threading
from dataclasses import dataclass, field, fields, replace

import pytest
import torch
from toy import PROMPTS, Scripted, gradients, rowwise, toy, toy_halves

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError, TrainingError
from maskrl.filters.std_percentile import StdPercentile
from maskrl.grpo.update import Actor, Learner, SingleProcess, collect, learn
from maskrl.interfaces import RewardModel
from maskrl.reducers.computational import Computational
from maskrl.reducers.unmasking import Unmasking
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt

TRANSITIONS = [Ar(Ar.Config()), PTheta1(PTheta1.Config()), PTheta2(PTheta2.Config())]


def logps(halves, batch, generator=None):
    """log p of every (image, trained step), one pair at a time: Float [B, k]."""
    generator, rows = generator or halves.generator, []
    conditions = generator.encode(batch.prompts)
    for b in range(batch.trajectory.num_images):
        for t in batch.steps.tolist():
            row = batch.trajectory.transitions(torch.tensor([b]), torch.tensor([t]))
            condition = conditions.select(torch.tensor([b // halves.algorithm.config.group_size]))
            dense = generator.logits(
                row.state, condition, row.step, rowwise(halves.algorithm.sampling.guidance_loss)
            )
            rows.append(halves.algorithm.transition.log_prob(dense[row.masked], row))
    return torch.cat(rows).view(-1, len(batch.steps))


@pytest.mark.parametrize(
    ("transition", "kl_coef", "wanted"),
    [(TRANSITIONS[2], 0.0, "revealed"), (TRANSITIONS[2], 0.1, "masked"), (TRANSITIONS[0], 0.0, "masked")],
)
def test_logits_are_asked_for_where_the_loss_looks(transition, kl_coef, wanted):
    seen = []

    class Asked(type(toy())):
        def logits(self, tokens, condition, step, guidance, positions=None):
            seen.append(int(positions.sum()))
            return super().logits(tokens, condition, step, guidance, positions)

    generator = Asked(toy().config)
    halves = toy_halves(generator, transition=transition, config={"kl_coef": kl_coef}, reference=toy())
    actor = replace(halves.actor, record_logp=True)
    batch = collect(actor, PROMPTS[:2], 0)
    trajectory, recorded = batch.trajectory, seen[3:]  # after three steps of painting
    positions = {"masked": trajectory.state == trajectory.mask_id, "revealed": trajectory.reveal_rank >= 0}
    assert sum(recorded) == int(positions[wanted].sum())
    seen.clear()
    assert learn(halves.learner, batch)["ratio_max"] == 1
    assert sum(seen) == int(positions[wanted].sum())


def loss_of(halves, batch, old, generator=None):
    """Eq. 10 written out, for the kept images; also the ratios and where the clip acts."""
    ratio = (logps(halves, batch, generator) - old).exp()
    low, high = 1 - halves.algorithm.config.eps_low, 1 + halves.algorithm.config.eps_high
    adv = batch.adv.flatten()[:, None].to(ratio.dtype)
    gain = torch.minimum(ratio * adv, ratio.clamp(low, high) * adv)
    flat = ((adv > 0) & (ratio > high)) | ((adv < 0) & (ratio < low))
    kept = batch.keep.repeat_interleave(halves.algorithm.config.group_size)
    return -(gain * batch.weights)[kept].sum() / kept.sum(), ratio, flat


def gradient_of(loss, generator):
    grads = torch.autograd.grad(loss, list(generator.module.parameters()), allow_unused=True)
    return torch.cat([g.flatten() for g in grads if g is not None])


def adamw(generator, lr=3e-2):
    return torch.optim.AdamW(generator.module.parameters(), lr=lr, weight_decay=0.5)


def weights(generator):
    return torch.cat([p.detach().flatten().clone() for p in generator.module.parameters()])


# the first update


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_first_update_has_ratio_one_and_a_gradient(transition, dtype, guidance):
    halves = toy_halves(toy(dtype=dtype), transition=transition, sampling={"guidance_train": guidance})
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert metrics["ratio_min"] == metrics["ratio_max"] == metrics["ratio_mean"] == 1
    assert metrics["clip_fraction"] == metrics["kl"] == metrics["skipped"] == 0
    assert metrics["loss"] == pytest.approx(0, abs=1e-6)
    assert metrics["grad_norm"] == pytest.approx(gradients(halves.generator).norm().item(), rel=1e-5)
    assert metrics["grad_norm"] > 1e-3


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_first_gradient_is_the_policy_gradient(transition):
    halves = toy_halves(transition=transition)
    batch = collect(halves.actor, PROMPTS, 0)
    learn(halves.learner, batch)
    mine = gradients(halves.generator)
    logp = logps(halves, batch)
    objective = (logp * batch.adv.flatten()[:, None]).mean()
    torch.testing.assert_close(mine, gradient_of(-objective, halves.generator), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_gradient_against_finite_differences_of_the_whole_loss(transition):
    halves = toy_halves(transition=transition, config={"num_updates": 2})
    halves = halves.but(optimizer=torch.optim.SGD(halves.generator.module.parameters(), lr=0.05))
    start = copy.deepcopy(halves.generator)
    batch = collect(halves.actor, PROMPTS, 0)
    old = logps(halves, batch, start).detach()
    learn(halves.learner, batch)
    after_one = copy.deepcopy(start)
    one = halves.but(
        generator=after_one, config=halves.algorithm.config.model_copy(update={"num_updates": 1})
    )
    learn(one.but(optimizer=torch.optim.SGD(after_one.module.parameters(), lr=0.05)).learner, batch)
    direction = torch.Generator().manual_seed(0)
    mine, step, values = 0.0, 1e-6, []
    for sign in (1, -1):
        moved = copy.deepcopy(after_one)
        direction.manual_seed(0)
        with torch.no_grad():
            for p in moved.module.parameters():
                p.add_(sign * step * torch.randn(p.shape, generator=direction, dtype=p.dtype))
            values.append(loss_of(halves, batch, old, moved)[0].item())
    direction.manual_seed(0)
    for p in halves.generator.module.parameters():
        noise = torch.randn(p.shape, generator=direction, dtype=p.dtype)
        mine += float((p.grad * noise).sum())
    slope = (values[0] - values[1]) / (2 * step)
    assert mine == pytest.approx(slope, rel=1e-4)
    assert abs(slope) > 1e-4


# several optimizer steps per batch


@pytest.mark.parametrize(("transition", "num_updates"), [*((t, 2) for t in TRANSITIONS), (TRANSITIONS[1], 3)])
def test_last_ratio_is_that_of_the_saved_weights_and_clipped_terms_have_no_gradient(transition, num_updates):
    halves = toy_halves(transition=transition, config={"num_updates": num_updates})
    start = copy.deepcopy(halves.generator)
    batch = collect(halves.actor, PROMPTS, 0)
    between = copy.deepcopy(start)
    fewer = halves.algorithm.config.model_copy(update={"num_updates": num_updates - 1})
    learn(halves.but(generator=between, config=fewer, optimizer=adamw(between)).learner, batch)
    metrics = learn(halves.but(optimizer=adamw(halves.generator)).learner, batch)

    old = logps(halves, batch, start).detach()
    loss, ratio, flat = loss_of(halves, batch, old, between)
    assert metrics["ratio_min"] == pytest.approx(ratio.min().item(), rel=1e-6)
    assert metrics["ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-6)
    assert metrics["ratio_mean"] == pytest.approx(ratio.mean().item(), rel=1e-6)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert metrics["clip_fraction"] == pytest.approx(flat.double().mean().item())
    assert 0 < metrics["clip_fraction"] < 1

    mine = gradients(halves.generator)
    adv = batch.adv.flatten()[:, None]
    unclipped = -(ratio * adv * batch.weights)[~flat].sum() / len(adv)
    torch.testing.assert_close(mine, gradient_of(unclipped, between), rtol=1e-5, atol=1e-8)


def test_without_a_step_in_between_the_second_ratio_is_exactly_one():
    for dtype in ("float32", "float64"):
        halves = toy_halves(toy(dtype=dtype), config={"num_updates": 3})
        metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
        assert metrics["ratio_min"] == metrics["ratio_max"] == 1


# what must change nothing


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("micro_batch", [1, 3, 7, 36])
def test_micro_batch_changes_no_gradient(dtype, micro_batch):
    results = []
    for size in (4, micro_batch):
        halves = toy_halves(toy(dtype=dtype), micro_batch=size)
        metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
        results.append(gradients(halves.generator))
        assert metrics["ratio_max"] == 1
    tight = {"rtol": 1e-10, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(*results, **tight)
    assert results[0].norm() > 1e-3


@pytest.mark.parametrize("micro_batch", [1, 36])
def test_micro_batch_changes_no_weights_after_several_steps(micro_batch):
    results = []
    for size in (5, micro_batch):
        generator = toy()
        halves = toy_halves(
            generator, micro_batch=size, config={"num_updates": 2}, optimizer=adamw(generator)
        )
        for update in range(2):
            learn(halves.learner, collect(halves.actor, PROMPTS[:2], update))
        results.append(weights(generator))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rollout_batch", "reward_batch"), [(1, 1), (5, 2), (12, 100)])
def test_rollout_and_reward_batches_change_no_sample(dtype, rollout_batch, reward_batch):
    base = toy_halves(toy(dtype=dtype))
    first = collect(base.actor, PROMPTS, 3)
    second = collect(base.but(rollout_batch=rollout_batch, reward_batch=reward_batch).actor, PROMPTS, 3)
    for name in ("state", "proposals", "reveal_rank", "floored", "tokens"):
        assert torch.equal(getattr(first.trajectory, name), getattr(second.trajectory, name))
    assert torch.equal(first.rewards, second.rewards)
    assert torch.equal(first.images, second.images)


@dataclass
class Table:
    """Where threads that play processes meet."""

    size: int
    seats: dict[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.barrier = threading.Barrier(self.size, timeout=20)


@dataclass
class Seat:
    rank: int
    table: Table
    own: torch.Tensor | None = None  # this process's gradient, before it is added to the others

    @property
    def world_size(self):
        return self.table.size

    def gather(self, values):
        self.table.seats[self.rank] = values
        self.table.barrier.wait()
        together = torch.cat([self.table.seats[rank] for rank in range(self.world_size)])
        self.table.barrier.wait()
        return together

    def sum(self, value):
        return self.gather(value[None]).sum(dim=0)

    def sum_gradients(self, parameters):
        self.own = torch.cat([p.grad.flatten() for p in parameters])
        for p in parameters:
            p.grad = self.sum(p.grad)


def split(prompts, size, **changes):
    """One update in ``size`` threads with a share of the prompts each; weights stay (learning rate 0)."""
    table, results = Table(size), [None] * size
    share = len(prompts) // size
    racks = [toy_halves(process=Seat(rank, table), **copy.deepcopy(changes)) for rank in range(size)]

    def work(rank):
        batch = collect(racks[rank].actor, prompts[rank * share : (rank + 1) * share], 2)
        results[rank] = racks[rank], batch, learn(racks[rank].learner, batch)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("advantage_std", ["group", "global"])
def test_splitting_the_prompts_changes_neither_samples_nor_gradients(size, advantage_std):
    config = {"advantage_std": advantage_std}
    halves = toy_halves(config=config)
    batch = collect(halves.actor, PROMPTS, 2)
    metrics = learn(halves.learner, batch)
    seats = split(PROMPTS, size, config=config)
    assert torch.equal(batch.trajectory.tokens, torch.cat([b.trajectory.tokens for _, b, _ in seats]))
    assert torch.equal(batch.rewards, torch.cat([b.rewards for _, b, _ in seats]))
    torch.testing.assert_close(batch.adv, torch.cat([b.adv for _, b, _ in seats]))
    for p, b, m in seats:
        torch.testing.assert_close(
            gradients(p.generator), gradients(halves.generator), rtol=1e-10, atol=1e-12
        )
        assert m["grad_norm"] == pytest.approx(metrics["grad_norm"])
        for name in ("loss", "ratio_max", "clip_fraction"):
            assert m[name] == pytest.approx(metrics[name], abs=1e-12)
        for name in ("reward_mean", "reward_std", "entropy", "floored_fraction", "resample_rate"):
            assert b.metrics[name] == pytest.approx(batch.metrics[name])


@pytest.mark.parametrize("kl_coef", [0.0, 0.5])
def test_processes_keep_step_when_one_keeps_nothing_and_resample_together(kl_coef):
    shared = {"reference": toy(seed=1), "config": {"kl_coef": kl_coef}}
    rounds = [[True, False, False, False], [True, False, False], [False, False]]
    halves = toy_halves(filter=Scripted(*rounds), **copy.deepcopy(shared))
    batch = collect(halves.actor, PROMPTS, 2)
    learn(halves.learner, batch)
    assert batch.keep.tolist() == [True, True, False, False]
    seats = split(PROMPTS, 2, filter=Scripted(*rounds), **shared)
    assert [b.keep.tolist() for _, b, _ in seats] == [[True, True], [False, False]]
    assert torch.equal(batch.trajectory.tokens, torch.cat([b.trajectory.tokens for _, b, _ in seats]))
    for p, _, _ in seats:
        for mine, shown in zip(p.actor.filter.shown, halves.actor.filter.shown, strict=True):
            assert torch.equal(mine, shown)  # groups drawn only to keep step are not shown to the filter
    assert len({len(p.generator.calls) for p, _, _ in seats}) == 1
    for p, _, _ in seats:
        torch.testing.assert_close(
            gradients(p.generator), gradients(halves.generator), rtol=1e-10, atol=1e-12
        )
    assert seats[0][0].learner.process.own.abs().max() > 0
    assert seats[1][0].learner.process.own.abs().max() == 0


# samples


def test_a_prompt_drawn_twice_gives_other_images_and_is_encoded_once():
    halves = toy_halves(toy(sharpness=0.5))
    batch = collect(halves.actor, [PROMPTS[0], PROMPTS[1], PROMPTS[0], Prompt("bright")], 0)
    tokens = batch.trajectory.tokens.view(4, 3, -1)
    assert not torch.equal(tokens[0], tokens[2])
    assert halves.generator.encoded == ["bright", "dark"]


def test_other_updates_have_other_noise_and_the_same_update_the_same():
    halves = toy_halves(toy(sharpness=0.5))
    first, again, later = (
        collect(halves.actor, PROMPTS, update).trajectory.proposals for update in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_the_batch_is_what_it_says():
    halves = toy_halves(reducer=Unmasking(Unmasking.Config(steps=2)))
    batch = collect(halves.actor, PROMPTS, 5)
    assert batch.trajectory.num_steps == 2
    assert batch.images.shape == (12, 3, 1, 6)
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    assert torch.equal(halves.actor.reward.score(batch.images, prompts).view(4, 3), batch.rewards)
    assert batch.metrics["reward_mean"] == pytest.approx(batch.rewards.mean().item())
    assert batch.metrics["reward_std"] == pytest.approx(batch.rewards.std(dim=1, correction=0).mean().item())
    assert batch.metrics["resample_rate"] == 0
    assert batch.metrics["entropy"] == pytest.approx(batch.trajectory.entropy.mean().item())
    assert batch.metrics["seconds_rollout"] > 0 < batch.metrics["seconds_reward"]


def test_num_steps_defaults_to_the_generators_and_must_fit():
    halves = toy_halves(config={"num_steps": None})
    assert collect(halves.actor, PROMPTS, 0).trajectory.num_steps == halves.generator.spec.sampler.num_steps
    with pytest.raises(RecipeError, match="num_steps = 7"):
        collect(toy_halves(config={"num_steps": 7}).actor, PROMPTS, 0)


# the filter


def test_rejected_groups_are_drawn_again_and_replace_the_old():
    halves = toy_halves(
        toy(sharpness=0.5), filter=Scripted([True, False, True, False], [False, True], [True])
    )
    batch = collect(halves.actor, PROMPTS, 0)
    plain = collect(halves.but(filter=Scripted([True] * 4)).actor, PROMPTS, 0)
    tokens, before = batch.trajectory.tokens.view(4, 3, -1), plain.trajectory.tokens.view(4, 3, -1)
    assert batch.keep.all()
    assert [torch.equal(a, b) for a, b in zip(tokens, before, strict=True)] == [True, False, True, False]
    assert torch.equal(halves.actor.filter.shown[0], plain.rewards)
    assert torch.equal(halves.actor.filter.shown[1][1], batch.rewards[3])
    assert torch.equal(halves.actor.filter.shown[2][0], batch.rewards[1])
    assert batch.metrics["resample_rate"] == pytest.approx(3 / 7)
    assert batch.metrics["filter_rounds"] == 3


def test_what_stays_rejected_leaves_the_loss():
    halves = toy_halves(config={"max_resamples": 1}, filter=Scripted([True, False, True, True], [False]))
    batch = collect(halves.actor, PROMPTS, 0)
    assert batch.keep.tolist() == [True, False, True, True]
    assert (batch.adv[1] == 0).all()
    metrics = learn(halves.learner, batch)
    old = logps(halves, batch).detach()
    torch.testing.assert_close(
        gradients(halves.generator),
        gradient_of(loss_of(halves, batch, old)[0], halves.generator),
        rtol=1e-6,
        atol=1e-8,
    )
    assert metrics["skipped"] == 0
    assert batch.metrics["kept_fraction"] == 0.75


def test_rejected_groups_cost_no_forward_on_one_process():
    halves = toy_halves(
        config={"max_resamples": 0}, filter=Scripted([True, False, False, True]), micro_batch=1
    )
    batch = collect(halves.actor, PROMPTS, 0)
    halves.generator.calls.clear()
    learn(halves.learner, batch)
    assert len(halves.generator.calls) == 2 * 3 * 3


def test_when_all_is_rejected_no_weight_moves_but_the_schedule_goes_on():
    generator = toy()
    optimizer = adamw(generator)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 / (1 + update))
    halves = toy_halves(generator, optimizer=optimizer, lr_scheduler=scheduler, config={"max_resamples": 0})
    learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    before = weights(generator)
    metrics = learn(halves.learner, collect(halves.but(filter=Scripted([False] * 4)).actor, PROMPTS, 1))
    assert metrics["skipped"] == 1
    assert torch.equal(before, weights(generator))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(3e-2 / 3)
    assert set(metrics) == set(learn(halves.learner, collect(halves.actor, PROMPTS, 2)))
    assert not torch.equal(before, weights(generator))


def test_std_percentile_resamples_in_a_run():
    group_filter = StdPercentile(StdPercentile.Config(percentile=60, warmup=4))
    halves = toy_halves(filter=group_filter)
    rates = [collect(halves.actor, PROMPTS, update).metrics["resample_rate"] for update in range(4)]
    assert rates[0] == 0 < max(rates)
    drawn = sum(4 / (1 - rate) for rate in rates)
    assert group_filter.metrics()["filter_history"] == pytest.approx(drawn)


# steps and their weights


def test_only_the_chosen_steps_enter_the_loss():
    halves = toy_halves(reducer=Computational(Computational.Config(steps=2, which="last")), micro_batch=1)
    batch = collect(halves.actor, PROMPTS, 0)
    halves.generator.calls.clear()
    learn(halves.learner, batch)
    assert batch.steps.tolist() == [1, 2]
    assert len(halves.generator.calls) == 12 * 2
    loss = loss_of(halves, batch, logps(halves, batch).detach())[0]
    torch.testing.assert_close(
        gradients(halves.generator), gradient_of(loss, halves.generator), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("micro_batch", [1, 4, 100])
def test_every_step_has_its_own_weight(micro_batch):
    halves = toy_halves(micro_batch=micro_batch)
    batch = collect(halves.actor, PROMPTS, 0)
    batch = replace(batch, weights=torch.tensor([0.7, 0.1, 0.2]))
    learn(halves.learner, batch)
    loss = loss_of(halves, batch, logps(halves, batch).detach())[0]
    torch.testing.assert_close(
        gradients(halves.generator), gradient_of(loss, halves.generator), rtol=1e-6, atol=1e-8
    )


# guidance


@pytest.mark.parametrize(("mode", "expected"), [("same", 1.5), ("rollout_only", 0.0)])
def test_guidance_of_the_rollout_is_on_in_the_loss_unless_said_otherwise(mode, expected):
    halves = toy_halves(sampling={"guidance_train": 1.5, "guidance_in_loss": mode})
    batch = collect(halves.actor, PROMPTS, 0)
    assert {guidance for _, guidance in halves.generator.calls} == {1.5}
    halves.generator.calls.clear()
    learn(halves.learner, batch)
    assert {guidance for _, guidance in halves.generator.calls} == {expected}
    loss = loss_of(halves, batch, logps(halves, batch).detach())[0]
    torch.testing.assert_close(
        gradients(halves.generator), gradient_of(loss, halves.generator), rtol=1e-6, atol=1e-8
    )


# KL


def kl_halves(kl, reference, coef=0.5, **changes):
    return toy_halves(reference=reference, config={"kl_coef": coef, "kl": kl}, **changes)


def position_logps(halves, batch, generator=None):
    """log p of every proposal at every masked position of every (image, trained step): Float [M]."""
    generator, found = generator or halves.generator, []
    conditions = generator.encode(batch.prompts)
    for b in range(batch.trajectory.num_images):
        for t in batch.steps.tolist():
            row = batch.trajectory.transitions(torch.tensor([b]), torch.tensor([t]))
            condition = conditions.select(torch.tensor([b // halves.algorithm.config.group_size]))
            dense = generator.logits(
                row.state, condition, row.step, rowwise(halves.algorithm.sampling.guidance_loss)
            )
            chosen = dense.log_softmax(-1).gather(-1, row.proposals[..., None]).squeeze(-1)
            found.append(chosen[row.masked])
    return torch.cat(found)


def test_without_a_coefficient_the_reference_is_never_asked():
    reference = toy(seed=1)
    halves = kl_halves("k3", reference, coef=0.0)
    assert learn(halves.learner, collect(halves.actor, PROMPTS, 0))["kl"] == 0
    assert reference.calls == reference.encoded == []


@pytest.mark.parametrize("kl", ["k2", "k3", "exact"])
def test_kl_is_zero_with_zero_gradient_at_the_reference(kl):
    plain, halves = toy_halves(), kl_halves(kl, toy())
    assert learn(halves.learner, collect(halves.actor, PROMPTS, 0))["kl"] == pytest.approx(0, abs=1e-12)
    learn(plain.learner, collect(plain.actor, PROMPTS, 0))
    torch.testing.assert_close(gradients(halves.generator), gradients(plain.generator), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kl", ["k2", "k3", "exact"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_kl_pulls_towards_a_frozen_reference(kl, guidance):
    reference = toy(seed=1, sharpness=1.0)
    before = weights(reference)
    sampling = {"guidance_train": guidance}
    halves, plain = kl_halves(kl, reference, sampling=sampling), toy_halves(sampling=sampling)
    batch = collect(halves.actor, PROMPTS, 0)
    metrics = learn(halves.learner, batch)
    learn(plain.learner, batch)
    assert metrics["kl"] > 0.01
    assert metrics["loss"] == pytest.approx(0.5 * metrics["kl"], rel=1e-4, abs=1e-6)
    pull = gradients(halves.generator) - gradients(plain.generator)
    assert pull.norm() > 1e-3
    assert torch.equal(before, weights(reference))
    assert all(p.grad is None for p in reference.module.parameters())
    if kl == "k2":
        drift = position_logps(halves, batch, reference).detach() - position_logps(halves, batch)
        value = 0.5 * drift.square().sum() / 2 / batch.trajectory.num_images / len(batch.steps)
        torch.testing.assert_close(pull, gradient_of(value, halves.generator), rtol=1e-5, atol=1e-7)


# what fails loudly


class Broken(RewardModel):
    def score(self, images, prompts):
        return torch.tensor(
            [math.nan if prompt.text == "left" else float(i) for i, prompt in enumerate(prompts)]
        )


def test_a_nan_reward_names_update_component_and_prompt():
    halves = toy_halves(reward=Broken(Broken.Config()))
    with pytest.raises(TrainingError, match=r"update 7: the reward 'Broken' gave nan for an image of 'left'"):
        collect(halves.actor, PROMPTS, 7)


def test_a_nan_loss_names_update_component_and_prompt_and_leaves_the_weights():
    class Spoilt(PTheta2):
        def log_prob(self, logits, transition):
            value = super().log_prob(logits, transition)
            return torch.where(transition.step.t == 1, value * math.nan, value)

    generator = toy()
    halves = toy_halves(generator, transition=Spoilt(PTheta2.Config()), optimizer=adamw(generator))
    before = weights(generator)
    batch = collect(halves.actor, PROMPTS, 4)
    with pytest.raises(TrainingError, match=r"update 4: the loss of 'Spoilt' is nan for 'bright' at step 1"):
        learn(halves.learner, batch)
    assert torch.equal(before, weights(generator))


def test_a_gradient_that_is_not_finite_leaves_the_weights():
    class Overflowing(SingleProcess):
        def sum_gradients(self, parameters):
            generator.module.head.bias.grad[0] = math.inf

    generator = toy()
    halves = toy_halves(generator, process=Overflowing(), optimizer=adamw(generator))
    before = weights(generator)
    with pytest.raises(TrainingError, match=r"update 0: the gradient of 'ToyGenerator' has norm inf"):
        learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert torch.equal(before, weights(generator))


# odds and ends


def test_the_gradient_is_clipped_to_max_grad_norm():
    halves = toy_halves(max_grad_norm=1e-3)
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert metrics["grad_norm"] > 1e-2
    assert gradients(halves.generator).norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("transition", TRANSITIONS)
def test_a_toy_learns(transition):
    generator = toy(sharpness=1.0, dtype="float32")
    optimizer = torch.optim.Adam(generator.module.parameters(), lr=0.03)
    halves = toy_halves(generator, transition=transition, optimizer=optimizer, micro_batch=100)
    curve = []
    for update in range(30):
        batch = collect(halves.actor, PROMPTS[:2], update)
        learn(halves.learner, batch)
        curve.append(batch.metrics["reward_mean"])
    assert sum(curve[-5:]) / 5 > sum(curve[:5]) / 5 + 0.3


@pytest.mark.parametrize("kind", [Actor, Learner])
def test_actor_and_learner_are_frozen_and_small(kind):
    half = {Actor: toy_halves().actor, Learner: toy_halves().learner}[kind]
    with pytest.raises(AttributeError):
        half.generator = toy()
    assert len(fields(kind)) < 10


class Constant(RewardModel):
    """Gives every image the same number."""

    class Config(ComponentConfig):
        value: float

    def score(self, images, prompts):
        return torch.full((len(prompts),), self.config.value)


@pytest.mark.parametrize("value", [0.1, 1e2, 12345.678, 1e6])
@pytest.mark.parametrize("std", ["group", "global", "none"])
def test_a_constant_reward_has_no_gradient_at_all(value, std):
    reward = Constant(Constant.Config(value=value))
    halves = toy_halves(reward=reward, config={"group_size": 6, "advantage_std": std})
    batch = collect(halves.actor, PROMPTS, 0)
    assert (batch.adv == 0).all()
    assert learn(halves.learner, batch)["grad_norm"] == 0
