"""What a checkpoint saves is a list of named things with a state; one more is saved and found back like the rest."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import toy, toy_halves

from maskrl.errors import TrainingError
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import Checkpoint, listed, load
from maskrl.runtime.metrics import is_wall_clock, read_rows
from maskrl.training import loop
from maskrl.training.loop import train
from maskrl.training.state import HasState, Moments, Progress, Weights, capture, restore

FIXTURE = Path(__file__).parent / "fixtures" / "old_run" / "run"


class Average:
    """A moving average of the weights: tensors, and a number."""

    def __init__(self, generator):
        self.module, self.steps = generator.module, 0
        self.means = {name: p.detach().clone() for name, p in generator.module.named_parameters()}

    def step(self, *_):
        self.steps += 1
        for name, parameter in self.module.named_parameters():
            self.means[name].lerp_(parameter.detach(), 0.25)

    def state_dict(self):
        return {**self.means, "steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
        self.means = {name: state[name].clone() for name in self.means}


class Best:
    """What a rule to stop early remembers: numbers alone."""

    def __init__(self):
        self.rewards = []

    def state_dict(self):
        return {"rewards": self.rewards}

    def load_state_dict(self, state):
        self.rewards = list(state["rewards"])


@pytest.fixture
def more(monkeypatch):
    """Runs have two things more, which every optimizer step changes; returns those of the latest run."""
    found = {}
    real = loop.set_up

    def set_up(recipe):
        setup = real(recipe)
        found["average"], found["best"] = Average(setup.learner.generator), Best()
        setup.learner.optimizer.register_step_post_hook(found["average"].step)
        setup.learner.optimizer.register_step_post_hook(
            lambda *_: found["best"].rewards.append(len(found["best"].rewards) / 3)
        )
        return replace(setup, state={**setup.state, **found})

    monkeypatch.setattr(loop, "set_up", set_up)
    return found


def recipe_of(toy_recipe, *changes):
    return read_recipe(str(toy_recipe), ["training.updates=5", "checkpoint.every=2", *changes])


def test_a_thing_of_ones_own_is_found_back_after_a_kill_to_the_last_bit(
    toy_recipe, tmp_path, more, monkeypatch
):
    train(recipe_of(toy_recipe), tmp_path / "whole", resume=False, display=False)
    expected = {**more["average"].state_dict(), **more["best"].state_dict()}
    stop = recipe_of(toy_recipe, "reward.after=4", "reward.then=SIGTERM")
    with pytest.raises(SystemExit):
        train(stop, tmp_path / "killed", resume=False, display=False)
    assert more["average"].steps < 5
    monkeypatch.setenv("TOY_HARMLESS", "1")
    train(stop, tmp_path / "killed", resume=True, display=False)
    found = {**more["average"].state_dict(), **more["best"].state_dict()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, name
    assert more["average"].steps == len(more["best"].rewards) == 5
    rows = [
        [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(tmp_path / run)]
        for run in ("whole", "killed")
    ]
    assert rows[0] == rows[1]


def test_a_thing_of_ones_own_lies_in_the_checkpoint_by_its_name(toy_recipe, tmp_path, more):
    train(recipe_of(toy_recipe), tmp_path / "run", resume=False, display=False)
    saved = load(listed(tmp_path / "run" / "checkpoints")[-1])
    assert saved.state["best"] == {"rewards": [0, 1 / 3, 2 / 3, 1, 4 / 3]}
    assert saved.state["average"] == {"steps": 5}
    assert torch.equal(saved.tensors["average/embed.weight"], more["average"].means["embed.weight"])
    assert not torch.equal(saved.tensors["average/embed.weight"], saved.tensors["parameter/embed.weight"])


def test_the_layout_is_that_of_older_versions(toy_recipe, tmp_path):
    """Names of tensors, keys, and their order, as in a checkpoint that an earlier version wrote."""
    old = load(listed(FIXTURE / "checkpoints")[-1])
    train(recipe_of(toy_recipe), tmp_path / "run", resume=False, display=False)
    new = load(listed(tmp_path / "run" / "checkpoints")[-1])
    assert set(new.tensors) == set(old.tensors)
    changed = {"recipe", "rows_sha256"}  # the old one is of before rows were hashed, and still had a digest
    assert [key for key in new.state if key not in changed] == [
        key for key in old.state if key not in changed
    ]
    assert new.state["filter"] == {}


def test_a_thing_that_the_checkpoint_lacks_or_has_besides_is_one_line(toy_recipe, tmp_path, request):
    run, more_run = tmp_path / "run", tmp_path / "more"
    train(recipe_of(toy_recipe, "training.updates=2"), run, resume=False, display=False)
    request.getfixturevalue("more")
    with pytest.raises(
        TrainingError, match="does not hold the state of 'average', which this run has"
    ) as lacks:
        train(recipe_of(toy_recipe), run, resume=True, display=False)
    train(recipe_of(toy_recipe, "training.updates=2"), more_run, resume=False, display=False)
    request.getfixturevalue("monkeypatch").undo()
    with pytest.raises(
        TrainingError, match="holds the state of 'average', which this run does not"
    ) as besides:
        train(recipe_of(toy_recipe), more_run, resume=True, display=False)
    for caught in (lacks, besides):
        assert "\n" not in str(caught.value)
        assert "update_00002" in str(caught.value)
    before = (run / "metrics.jsonl").read_bytes()
    assert train(recipe_of(toy_recipe), run, resume=True, display=False).updates == 5  # as it was written
    assert (run / "metrics.jsonl").read_bytes().startswith(before)


def things(generator):
    optimizer = torch.optim.AdamW(generator.module.parameters(), lr=0.1)
    halves = toy_halves(generator, optimizer=optimizer)
    return {"parameter": Weights(generator), "optimizer": Moments(generator, optimizer)}, halves.learner


def step(learner):
    for parameter in learner.generator.module.parameters():
        parameter.grad = torch.ones_like(parameter)
    learner.optimizer.step()


class Rate:
    """A learning rate that nothing changes."""

    def continue_from(self, updates):
        self.updates = updates


def checkpoint_of(saved, tmp_path):
    tensors, state = saved
    return Checkpoint(tmp_path / "update_00003", tensors, json.loads(json.dumps(state)))


def test_weights_and_moments_are_put_back_to_the_last_bit(tmp_path):
    ours, learner = things(toy())
    step(learner)
    saved = capture(ours, Progress(3, 7, "ab", 1.5))
    saved = {key: value.clone() for key, value in saved[0].items()}, saved[1]
    step(learner)
    after = {key: value.clone() for key, value in capture(ours, Progress())[0].items()}
    others, other = things(toy(seed=5))
    rate = Rate()
    restore(checkpoint_of(saved, tmp_path), others, rate)
    assert rate.updates == 3
    step(other)
    found = capture(others, Progress())[0]
    assert found.keys() == after.keys()
    assert all(torch.equal(found[key], value) for key, value in after.items())


def test_the_weights_of_another_network_are_refused_and_nothing_is_changed(tmp_path):
    ours, _ = things(toy())
    saved = capture(ours, Progress(3))
    generator = toy(width=9)
    others, _ = things(generator)
    before = [parameter.clone() for parameter in generator.module.parameters()]
    with pytest.raises(
        TrainingError, match=r"update_00003'.* does not fit the recipe's generator: 'head.weight' is"
    ):
        restore(checkpoint_of(saved, tmp_path), others, Rate())
    assert all(torch.equal(p, b) for p, b in zip(generator.module.parameters(), before, strict=True))


def test_a_run_that_never_stepped_has_no_moments_and_is_restored(tmp_path):
    ours, _ = things(toy())
    saved = capture(ours, Progress(1))
    saved[1].pop("optimizer")  # earlier versions wrote nothing
    others, _ = things(toy(seed=5))
    restore(checkpoint_of(saved, tmp_path), others, Rate())
    assert torch.equal(
        next(iter(others["parameter"].state_dict().values())), saved[0]["parameter/token.weight"]
    )


def test_an_optimizer_that_counts_in_an_int_gets_an_int_back(tmp_path):
    """As bitsandbytes does."""
    ours, learner = things(toy())
    step(learner)
    for moments in learner.optimizer.state.values():
        moments["count"] = 7
    saved = capture(ours, Progress(3))
    others, other = things(toy(seed=5))
    restore(checkpoint_of(saved, tmp_path), others, Rate())
    assert {type(moments["count"]) for moments in other.optimizer.state.values()} == {int}
    assert {moments["count"] for moments in other.optimizer.state.values()} == {7}


def test_a_torch_module_has_a_state_as_it_is():
    """No adapter is needed for what speaks torch's words."""
    thing: HasState = torch.nn.BatchNorm1d(2)
    tensors, state = capture({"norm": thing}, Progress())
    assert set(tensors) == {f"norm/{name}" for name in thing.state_dict()}
    assert "norm" not in state
