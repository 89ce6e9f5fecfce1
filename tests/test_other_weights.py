"""Batches painted by other weights than those that learn: the ratio is exp(new - recorded), or it is refused."""

import copy
import threading
from dataclasses import replace

import pytest
import torch
from test_update import TRANSITIONS, Seat, Table, adamw, logps, loss_of
from toy import PROMPTS, Scripted, ToyReward, gradients, toy, toy_halves

from maskrl.errors import PluginError, TrainingError
from maskrl.grpo import learn as learning
from maskrl.grpo.update import collect, learn
from maskrl.reducers.computational import Computational


def noise(parameter, size=0.05):
    return size * torch.randn(
        parameter.shape, generator=torch.Generator().manual_seed(1), dtype=parameter.dtype
    )


def in_place(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(noise(parameter))


def by_data(module):
    for parameter in module.parameters():
        parameter.data = parameter.data + noise(parameter)


def by_load_state_dict(module):
    module.load_state_dict({name: value + noise(value) for name, value in module.state_dict().items()})


def by_a_step(module):
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.03)
    for parameter in module.parameters():
        parameter.grad = noise(parameter)
    optimizer.step()


MOVES = [in_place, by_data, by_load_state_dict, by_a_step]


def check_ratio(halves, batch, metrics, old):
    """Against the log-probabilities, pair by pair, under the weights that painted and those that learn."""
    loss, ratio, flat = loss_of(halves, batch, old)
    assert metrics["ratio_min"] == pytest.approx(ratio.min().item(), rel=1e-6)
    assert metrics["ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-6)
    assert metrics["ratio_mean"] == pytest.approx(ratio.mean().item(), rel=1e-6)
    assert metrics["clip_fraction"] == pytest.approx(flat.double().mean().item())
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-6, abs=1e-12)
    assert ratio.max() > 1.001


@pytest.mark.parametrize("transition", TRANSITIONS)
@pytest.mark.parametrize("move", MOVES)
def test_moved_weights_have_an_honest_ratio_where_it_is_recorded(move, transition):
    halves = toy_halves(transition=transition, record_logp=True, rollout_batch=5)
    batch = collect(halves.actor, PROMPTS, 0)
    old = logps(halves, batch).detach()
    torch.testing.assert_close(batch.old_logp, old, rtol=1e-6, atol=1e-9)
    move(halves.generator.module)
    check_ratio(halves, batch, learn(halves.learner, batch), old)


@pytest.mark.parametrize("move", MOVES)
def test_moved_weights_are_refused_where_nothing_is_recorded_and_the_advice_helps(move):
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 3)
    move(halves.generator.module)
    with pytest.raises(
        TrainingError, match=r"update 3: .* other weights .* record_logp = True, or learn before"
    ):
        learn(halves.learner, batch)
    actor = replace(halves.actor, record_logp=True)
    assert learn(halves.learner, collect(actor, PROMPTS, 3))["ratio_max"] == 1


def test_learning_twice_from_a_batch_is_no_longer_on_policy():
    generator = toy()
    halves = toy_halves(generator, optimizer=adamw(generator), record_logp=True)
    batch = collect(halves.actor, PROMPTS, 0)
    old = logps(halves, batch).detach()
    first = learn(halves.learner, batch)
    assert first["ratio_min"] == first["ratio_max"] == 1
    now = copy.deepcopy(generator)
    second = learn(halves.learner, batch)
    check_ratio(halves.but(generator=now), batch, second, old)
    with pytest.raises(TrainingError, match="other weights"):
        learn(halves.learner, replace(batch, old_logp=None))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("transition", TRANSITIONS)
def test_on_policy_the_ratio_is_exactly_one_and_the_gradient_that_of_an_unrecorded_batch(dtype, transition):
    found = []
    for record in (False, True):
        halves = toy_halves(toy(dtype=dtype), transition=transition, record_logp=record, rollout_batch=5)
        metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
        assert metrics["ratio_min"] == metrics["ratio_max"] == 1
        found.append(gradients(halves.generator))
    assert torch.equal(*found)


def test_weights_moved_and_put_back_are_the_same_weights():
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 0)
    kept = copy.deepcopy(halves.generator.module.state_dict())
    in_place(halves.generator.module)
    halves.generator.module.load_state_dict(kept)
    assert learn(halves.learner, batch)["ratio_max"] == 1


def test_equal_weights_in_another_module_are_on_policy():
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 0)
    other = halves.but(generator=copy.deepcopy(halves.generator))
    assert learn(other.learner, batch)["ratio_max"] == 1


def test_an_actor_with_weights_of_its_own_has_an_honest_ratio_update_after_update():
    """Two updates behind the learner, as a copy that is set now and then."""
    generator = toy()
    halves = toy_halves(generator, optimizer=adamw(generator, lr=3e-3), record_logp=True)
    own = copy.deepcopy(generator)
    actor = replace(halves.actor, generator=own)
    for update in range(4):
        if update % 2 == 0:
            own.module.load_state_dict(generator.module.state_dict())
        batch = collect(actor, PROMPTS, update)
        old = logps(halves, batch, own).detach()
        now = halves.but(generator=copy.deepcopy(generator))
        metrics = learn(halves.learner, batch)
        if update % 2 == 0:
            assert metrics["ratio_min"] == metrics["ratio_max"] == 1
        else:
            check_ratio(now, batch, metrics, old)


def test_every_pass_over_a_batch_of_others_is_against_what_was_recorded():
    """With two updates, the second pass too: against the painting weights, not against the first pass."""
    halves = toy_halves(config={"num_updates": 2}, record_logp=True)
    batch = collect(halves.actor, PROMPTS, 0)
    old = logps(halves, batch).detach()
    in_place(halves.generator.module)
    metrics = learn(halves.learner, batch)  # the learning rate is 0
    check_ratio(halves, batch, metrics, old)


def test_what_is_recorded_is_of_the_steps_that_teach_and_of_kept_groups():
    reducer = Computational(Computational.Config(steps=2, which="last"))
    keep = Scripted([True, False, True, True])
    halves = toy_halves(
        reducer=reducer, filter=keep, config={"max_resamples": 0}, record_logp=True, micro_batch=5
    )
    batch = collect(halves.actor, PROMPTS, 0)
    assert batch.steps.tolist() == [1, 2]
    assert batch.old_logp.shape == (12, 2)
    old = logps(halves, batch).detach()
    in_place(halves.generator.module)
    expected = (logps(halves, batch) - old).exp().detach()[batch.keep.repeat_interleave(3)]
    metrics = learn(halves.learner, batch)
    assert metrics["ratio_mean"] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert metrics["ratio_min"] == pytest.approx(expected.min().item(), rel=1e-6)


def test_recording_is_under_the_guidance_of_the_loss():
    for mode in ("same", "rollout_only"):
        sampling = {"guidance_train": 1.5, "guidance_in_loss": mode}
        halves = toy_halves(sampling=sampling, record_logp=True)
        batch = collect(halves.actor, PROMPTS, 0)
        torch.testing.assert_close(batch.old_logp, logps(halves, batch).detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recorded_in_portions_of_a_micro_batch_the_numbers_are_the_learners_to_the_last_bit(dtype):
    halves = toy_halves(toy(dtype=dtype), record_logp=True, rollout_batch=5, micro_batch=5)
    batch = collect(halves.actor, PROMPTS, 0)
    metrics = learn(halves.learner, replace(batch, version=batch.version + 1))
    assert metrics["ratio_min"] == metrics["ratio_max"] == 1


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("record", [False, True])
def test_weights_that_move_while_images_are_painted_are_refused(move, record):
    """Otherwise what is recorded at the end would be said of images that other weights began."""

    class Meddling(ToyReward):
        def score(self, images, prompts):
            move(halves.generator.module)
            return super().score(images, prompts)

    halves = toy_halves(reward=Meddling(Meddling.Config()), record_logp=record)
    with pytest.raises(TrainingError, match="update 4: the weights of the actor moved while it was painting"):
        collect(halves.actor, PROMPTS, 4)
    still = halves.but(reward=ToyReward(ToyReward.Config()))
    before = still.generator.module.head.bias.clone()
    batch = collect(still.actor, PROMPTS, 4)  # set between two calls, as it says
    assert torch.equal(still.generator.module.head.bias, before)
    assert learn(still.learner, batch)["ratio_max"] == 1


def test_a_version_that_never_changes_is_caught(monkeypatch):
    """The planted fault of this file: with it, weights that moved are taken for those that painted."""
    monkeypatch.setattr(learning, "version", lambda module: 7)
    halves = toy_halves(record_logp=True)
    batch = replace(collect(halves.actor, PROMPTS, 0), version=7)
    in_place(halves.generator.module)
    with pytest.raises(PluginError, match="policy_gap"):
        learn(halves.learner, batch)


def test_processes_refuse_together():
    """One whose weights alone have moved would leave the others waiting."""
    table, said = Table(2), [None, None]
    seats = [toy_halves(process=Seat(rank, table)) for rank in range(2)]

    def work(rank):
        batch = collect(seats[rank].actor, PROMPTS[2 * rank : 2 * rank + 2], 2)
        if rank == 1:
            in_place(seats[rank].generator.module)
        try:
            learn(seats[rank].learner, batch)
        except TrainingError as error:
            said[rank] = str(error)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said[0] == said[1] is not None
