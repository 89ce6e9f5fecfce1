"""Batches painted ahead: by the weights before, whatever the clock says, over kills and on two processes."""

import copy
import json
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_casts import Casts
from test_processes import assert_same_rows, launch, settings
from test_training import (  # noqa: F401  # fixtures
    _one_thread,
    assert_same_weights,
    comparable,
    finish,
    folder,
    recipe_of,
    run_process,
    weights,
)

from maskrl.errors import RecipeError, TrainingError
from maskrl.grpo.casts import casting_once
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed
from maskrl.training import updating
from maskrl.training.loop import train
from maskrl.training.schedule import prompts_of
from maskrl.training.setup import set_up
from maskrl.training.worker import Interruptible

AHEAD = ("training.max_staleness=1", "training.lr_schedule=constant")
DRIFT = ("drift", "drift_kl", "staleness")


def updates_of(run):
    return [row for row in comparable(run) if row["kind"] == "update"]


def run_ahead(folder, name, *changes):  # noqa: F811
    train(recipe_of(folder, *AHEAD, *changes), folder / name, resume=False, display=False)
    return folder / name


def forget_what_was_saved(run):
    """So that its checkpoints may be gone, as if it had been killed before."""
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "saved": 0}))


def one_after_the_other(recipe):
    """Rows and weights of the same, without a thread: batch u by the weights before update u - 1."""
    setup = set_up(recipe)
    painter = copy.deepcopy(setup.actor.generator)
    portions = replace(setup.actor.portions, record_batch=recipe.training.micro_batch)
    actor = replace(setup.actor, generator=painter, record_logp=True, portions=portions)
    count = recipe.training.prompts_per_update
    batch, rows = None, []
    for update in range(recipe.training.updates):
        prompts = [prompts_of(u, setup.prompts, count, actor.stream) for u in (update, update + 1)]
        batch = batch or collect(actor, prompts[0], update)
        painter.module.load_state_dict(setup.learner.generator.module.state_dict())
        ahead = collect(actor, prompts[1], update + 1)
        rows.append({**batch.metrics, **learn(setup.learner, batch)})
        batch = ahead
    return rows, dict(setup.learner.generator.module.named_parameters())


def test_a_batch_is_painted_by_the_weights_before_the_update_before(folder):  # noqa: F811
    run = run_ahead(folder, "run", "eval=")
    rows, expected = one_after_the_other(recipe_of(folder, *AHEAD, "eval="))
    for mine, row in zip(updates_of(run), rows, strict=True):
        same = mine.keys() & row.keys()
        assert {name: mine[name] for name in same} == {name: row[name] for name in same}
        assert {"ratio_max", "reward_mean", "filter_threshold", "drift", "drift_kl"} <= same
    for name, parameter in expected.items():
        assert torch.equal(parameter, weights(run)[f"parameter/{name}"]), name


def test_the_drift_is_shown_and_off_there_is_none(folder):  # noqa: F811
    one_pass = ("eval=", "grpo.num_updates=1")
    first, *others = updates_of(run_ahead(folder, "run", *one_pass))
    assert (first["staleness"], first["drift"], first["ratio_min"], first["ratio_max"]) == (0, 0, 1, 1)
    for row in others:
        assert row["staleness"] == 1
        assert row["ratio_min"] < 1 < row["ratio_max"]
        assert 0 < row["drift"] < max(row["ratio_max"] - 1, 1 / row["ratio_min"] - 1)
        assert 0 < row["drift_kl"] < row["drift"]
    train(recipe_of(folder, *one_pass), folder / "off", resume=False, display=False)
    for row in updates_of(folder / "off"):
        assert not row.keys() & set(DRIFT)
        assert row["ratio_min"] == row["ratio_max"] == 1


@pytest.mark.parametrize("slow", ["painting", "learning"])
def test_what_comes_out_does_not_depend_on_the_clock(folder, slow, monkeypatch):  # noqa: F811
    calm = run_ahead(folder, "calm", "eval=")
    where = (Interruptible, "logits") if slow == "painting" else (updating, "learn")
    real = getattr(*where)

    def late(*given, **named):
        time.sleep(0.02 if slow == "painting" else 0.2)
        return real(*given, **named)

    monkeypatch.setattr(*where, late)
    slowed = run_ahead(folder, "slowed", "eval=")
    assert comparable(slowed) == comparable(calm)
    assert_same_weights(slowed, calm)


def test_it_learns_while_it_paints(folder, monkeypatch):  # noqa: F811
    """Each waits for the other: one after the other would never end."""
    painting, learning = threading.Event(), threading.Event()
    paint, teach = Interruptible.logits, updating.learn

    def painted(*given, **named):
        painting.set()
        if updates:
            assert learning.wait(60)
        return paint(*given, **named)

    def learnt(learner, batch):
        updates.append(batch.update)
        if batch.update == 0:
            painting.clear()
            learning.set()
            assert painting.wait(60)
        return teach(learner, batch)

    updates = []
    monkeypatch.setattr(Interruptible, "logits", painted)
    monkeypatch.setattr(updating, "learn", learnt)
    run_ahead(folder, "run", "eval=", "training.updates=2")
    assert updates == [0, 1]


@pytest.mark.slow
def test_a_killed_run_continues_exactly(folder, monkeypatch):  # noqa: F811
    whole = run_ahead(folder, "whole")
    stop = (*AHEAD, "reward.after=6", "reward.then=SIGKILL")
    assert run_process(folder, folder / "killed", *stop).returncode == -signal.SIGKILL
    finish(folder, folder / "killed", stop, monkeypatch)
    assert comparable(folder / "killed") == comparable(whole)
    assert_same_weights(folder / "killed", whole)


def test_a_finished_run_goes_on_as_a_longer_one(folder):  # noqa: F811
    """Also its last update leaves the weights that paint the next batch."""
    whole = run_ahead(folder, "whole", "eval=")
    for updates in (1, 3, 5):
        recipe = recipe_of(folder, *AHEAD, "eval=", f"training.updates={updates}")
        train(recipe, folder / "run", resume=updates > 1, display=False)
    assert comparable(folder / "run") == comparable(whole)
    assert_same_weights(folder / "run", whole)


def test_a_signal_waits_for_the_update_and_loses_nothing(folder, monkeypatch):  # noqa: F811
    whole = run_ahead(folder, "whole", "eval=")
    stop = ("reward.after=3", "reward.then=SIGINT", "eval=")
    with pytest.raises(KeyboardInterrupt):
        run_ahead(folder, "stopped", *stop)
    finish(folder, folder / "stopped", (*AHEAD, *stop), monkeypatch)
    assert comparable(folder / "stopped") == comparable(whole)


def test_an_error_while_painting_ends_the_run_as_it_would_without(folder, monkeypatch):  # noqa: F811
    found, calm = [], ("reward.after=4", "filter={ name = 'keep_all' }", "eval=")
    for name, changes in (("ahead", AHEAD), ("off", ())):
        with pytest.raises(TrainingError) as caught:
            train(recipe_of(folder, *changes, *calm), folder / name, resume=False, display=False)
        found.append((str(caught.value), [path.name for path in listed(folder / name / "checkpoints")]))
    assert found[0] == found[1]
    assert found[0][1] == ["update_00002", "update_00003"]
    finish(folder, folder / "ahead", (*AHEAD, *calm), monkeypatch)
    assert comparable(folder / "ahead") == comparable(run_ahead(folder, "whole", *calm[1:]))


def test_after_an_update_that_fails_while_it_learns_the_newest_checkpoint_stands(folder, monkeypatch):  # noqa: F811
    teach = updating.learn

    def fails(learner, batch):
        if batch.update == 3:
            raise TrainingError("the loss is lost")
        return teach(learner, batch)

    with monkeypatch.context() as patch:
        patch.setattr(updating, "learn", fails)
        with pytest.raises(TrainingError, match="the loss is lost"):
            run_ahead(folder, "run", "eval=")
    assert [path.name for path in listed(folder / "run/checkpoints")] == ["update_00002"]
    train(recipe_of(folder, *AHEAD, "eval="), folder / "run", resume=True, display=False)
    assert comparable(folder / "run") == comparable(run_ahead(folder, "whole", "eval="))


def test_whoever_stops_waits_for_one_pass_only(folder, monkeypatch):  # noqa: F811
    setup = set_up(recipe_of(folder, *AHEAD, "eval=", "grpo.num_steps=6"))
    logits, passes = Interruptible.logits, []

    def slow(*given, **named):
        passes.append(time.sleep(0.3))
        return logits(*given, **named)

    monkeypatch.setattr(Interruptible, "logits", slow)
    future = setup.rollouts._worker.submit(0)
    while not passes:
        time.sleep(0.01)
    setup.rollouts.close()
    assert "Cancelled" in str(future.exception(timeout=1))  # said of the toy, which is another's code
    assert len(passes) <= 2
    assert not any(thread.name == "painter" and thread.is_alive() for thread in threading.enumerate())


def test_in_bf16_the_painter_forgets_none_of_the_learner_s_copies(folder):  # noqa: F811
    """A pass that lost them in its middle would round otherwise, now and then."""
    setup = set_up(recipe_of(folder, *AHEAD, "eval=", "training.dtype=bf16"))
    layer, x = setup.learner.generator.module.body[0], torch.ones(1, 6 * 16 + 16)
    with Casts(setup.learner.generator.module) as casts, casting_once(torch.device("cpu")):
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                layer(x)
            setup.rollouts.take(0)
    setup.rollouts.close()
    assert casts.number == len(list(layer.parameters()))


PORTIONS = ("training.overlap_reward=true", "training.rollout_batch=5", "training.reward_batch=3")
WATCHED = (
    "watch.rewards.red.name={toy}:Red",
    "watch.every=1",
    "early_stop.reward=red",
    "early_stop.min_delta=1",
)
ADAPTERS = ("lora.rank=2", "lora.targets=['0', '2']", "grpo.kl_coef=0.1")


@pytest.mark.parametrize(
    "changes",
    [
        ("training.dtype=bf16", "sampling.guidance_train=1", *PORTIONS),
        ("grpo.kl_coef=0.1", "ema.decay=0.5", "training.offload=true", *WATCHED, "early_stop.patience=2"),
        pytest.param(ADAPTERS, marks=pytest.mark.slow),
    ],
)
def test_it_goes_with_everything_else_and_is_resumed(folder, changes):  # noqa: F811
    toy = Path(__file__).with_name("toy_run.py")
    few = [change.format(toy=toy) for change in changes] + ["tracking.samples_every=100"]
    whole = run_ahead(folder, "whole", "eval=", *few)
    shutil.copytree(whole, folder / "run")
    for checkpoint in listed(folder / "run/checkpoints")[1:]:
        shutil.rmtree(checkpoint)
    forget_what_was_saved(folder / "run")
    train(recipe_of(folder, *AHEAD, "eval=", *few), folder / "run", resume=True, display=False)
    assert comparable(folder / "run") == comparable(whole)
    assert_same_weights(folder / "run", whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("training.max_staleness=2",), "max_staleness = 2: one batch is painted ahead, never more; choose 0 or 1"),
        (("training.max_staleness=-1",), "max_staleness"),
        (("training.max_staleness=1", "training.compile=true"), "not compiled in two threads at a time"),
        (("training.max_staleness=1", "parallel.strategy=shard"), "paint and learn at a time; choose 'replicate'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_a_line(folder, changes, message):  # noqa: F811
    with pytest.raises(RecipeError) as caught:
        recipe_of(folder, *changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


CHANGES = (*AHEAD, "generator.double=true", "training.prompts_per_update=4", "tracking.samples_every=100")


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one_and_resume_them(folder):  # noqa: F811
    whole = train(read_recipe(folder / "recipe.toml", CHANGES), folder / "whole", resume=False, display=False)
    two = launch(folder, "train", "--recipe", "recipe.toml", "--run", "two", *settings(*CHANGES))
    assert two.returncode == 0, two.stderr
    assert "Warning" not in two.stderr
    assert_same_rows(comparable(whole.run), comparable(folder / "two"))
    for path in listed(folder / "two/checkpoints")[1:]:
        shutil.rmtree(path)
    forget_what_was_saved(folder / "two")
    again = launch(folder, "train", "--run", "two", "--resume")
    assert again.returncode == 0, again.stderr
    assert_same_rows(comparable(whole.run), comparable(folder / "two"))


@pytest.mark.slow
def test_an_error_of_one_painter_ends_all_with_a_line_each(folder):  # noqa: F811
    (folder / "fails.py").write_text(
        f"import os, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport toy_run\n"
        "class Fails(toy_run.Red):\n    def score(self, images, prompts):\n"
        "        scores = super().score(images, prompts)\n"
        "        if self.calls == 4 and os.environ['RANK'] == '1':\n"
        "            raise ConnectionError('the judge is away')\n        return scores\n"
    )
    changes = (*CHANGES, "reward.name=fails.py:Fails", "checkpoint.every=100", "filter={ name = 'keep_all' }")
    done = launch(folder, "train", "--recipe", "recipe.toml", "--run", "run", *settings(*changes, "eval="))
    assert done.returncode != 0
    assert [path.name for path in listed(folder / "run/checkpoints")] == ["update_00003"]
    ours = [row for row in done.stderr.splitlines() if row.startswith("maskrl: ")]
    assert any("the reward 'Fails' raised ConnectionError: the judge is away" in row for row in ours)
    assert any("another one has ended" in row for row in ours)
    assert "maskrl/cli/__init__.py" not in done.stderr, done.stderr


def test_check_on_policy_shows_the_drift_of_a_run(folder, cli):  # noqa: F811
    ahead = run_ahead(folder, "ahead", "eval=", "training.updates=2")
    told = cli("check", "on-policy", "--run", ahead, "--json")
    assert told.code == 0, told.err
    steps = json.loads(told.out)["drift"]
    assert [step["step"] for step in steps] == [0, 1, 2]
    for step in steps:
        assert step["ratio_min"] < 1 < step["ratio_max"]
        assert 1e-4 < step["drift"] < 1
    assert "that paint the next batch" in cli("check", "on-policy", "--run", ahead).out
    train(recipe_of(folder, "eval="), folder / "off", resume=False, display=False)
    assert "drift" not in json.loads(cli("check", "on-policy", "--run", folder / "off", "--json").out)
