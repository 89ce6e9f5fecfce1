"""The average of the weights: by hand, in whole runs, after a kill, with adapters."""

import json

import pytest
import torch
from conftest import TOY
from safetensors.torch import load_file
from toy_run import ToyGenerator, geneval_prompts

import maskrl
from maskrl.evals.results import read_result
from maskrl.library.sources import build_sampler, resolve_recipe
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed, load
from maskrl.runtime.metrics import is_wall_clock, read_rows
from maskrl.sections import EmaConfig
from maskrl.training.averaging import Average
from maskrl.training.loop import train
from maskrl.training.plan import plan

EMA = ("ema.decay=0.5", "ema.warmup=false")


@pytest.fixture
def recipe(toy_recipe, tmp_path):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    section = f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:StoppingTiles"\nimages_per_prompt = 2\n'
    toy_recipe.write_text(toy_recipe.read_text() + section)
    return toy_recipe


@pytest.fixture(autouse=True)
def harmless(monkeypatch):
    monkeypatch.setenv("TOY_HARMLESS", "1")


def run(recipe, folder, *changes, resume=False):
    train(read_recipe(recipe, ["training.updates=4", *changes]), folder, resume, display=False)
    return load(listed(folder / "checkpoints")[-1])


def named(checkpoint, whose):
    names = (name for name in checkpoint.tensors if name.startswith(f"{whose}/"))
    return {name.removeprefix(f"{whose}/"): checkpoint.tensors[name] for name in names}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def after(folder):
    return read_result(folder / "eval" / "geneval" / "after").numbers


def test_the_average_is_what_its_rule_says():
    generator = ToyGenerator(ToyGenerator.Config())
    (first, *_) = generator.module.parameters()
    start = first.detach().clone()
    average = Average(generator, EmaConfig(decay=0.15))
    with torch.no_grad():
        first += 1
    found = average.update()  # 1/10 stays, then 2/11, more than which 0.15 is less
    assert found["ema_decay"] == pytest.approx(0.1)
    size = torch.cat([p.detach().flatten() for p in generator.module.parameters()]).norm()
    assert found["ema_distance"] == pytest.approx(float(0.1 * first.numel() ** 0.5 / size), rel=1e-5)
    assert average.update()["ema_decay"] == 0.15
    with average.shown():
        assert torch.allclose(first, start + 1 - 0.1 * 0.15)
        with average.hidden():
            assert torch.equal(first, start + 1)
        assert torch.allclose(first, start + 1 - 0.1 * 0.15)
    assert torch.equal(first, start + 1)


@pytest.mark.slow
def test_a_plan_has_room_for_it():
    plain, averaged = (
        plan(read_recipe("shapes_clip", changes), 20, 1) for changes in ([], ["ema.decay=0.9"])
    )
    assert averaged.memory["average"] == 4 * averaged.trained
    assert averaged.peak - plain.peak == 4 * averaged.trained


def test_a_constant_decay_has_no_warm_up():
    average = Average(ToyGenerator(ToyGenerator.Config()), EmaConfig(decay=0.99, warmup=False))
    assert average.update()["ema_decay"] == 0.99


def test_training_is_as_without_and_what_was_trained_is_the_average(recipe, tmp_path):
    plain, averaged = run(recipe, tmp_path / "plain"), run(recipe, tmp_path / "ema", *EMA)
    assert same(named(plain, "parameter"), named(averaged, "parameter"))
    (weights, first, second, third, fourth) = (
        named(load(folder), "parameter") for folder in checkpoints(recipe, tmp_path / "steps")
    )
    wanted = {
        name: weights[name] / 16 + first[name] / 16 + second[name] / 8 + third[name] / 4 + fourth[name] / 2
        for name in weights
    }
    found = named(averaged, "ema")
    assert all(torch.allclose(found[name], wanted[name], atol=1e-6) for name in wanted)
    exported = load_file(averaged.folder / "generator" / "model.safetensors")
    assert same(exported, found)
    assert not same(exported, named(averaged, "parameter"))
    assert after(tmp_path / "ema") == maskrl.load(tmp_path / "ema").evaluate("geneval").numbers
    assert after(tmp_path / "ema") != after(tmp_path / "plain")
    decays = [row["ema_decay"] for row in read_rows(tmp_path / "ema") if row["kind"] == "update"]
    assert decays == [0.5] * 4
    assert "ema_decay" not in str(list(read_rows(tmp_path / "plain")))


def checkpoints(recipe, folder):
    run(recipe, folder, "checkpoint.every=1", "checkpoint.keep=9")
    base = folder / "base"
    run(recipe, base, "training.updates=1", "training.learning_rate=1e-30")  # moves no weight
    return [listed(base / "checkpoints")[-1], *listed(folder / "checkpoints")]


def test_the_weights_may_be_what_counts_also_later(recipe, tmp_path):
    plain = run(recipe, tmp_path / "plain")
    kept = run(recipe, tmp_path / "ema", *EMA, "ema.evaluate=false")
    exported = load_file(kept.folder / "generator" / "model.safetensors")
    assert same(exported, named(plain, "parameter"))
    assert after(tmp_path / "ema") == after(tmp_path / "plain")
    changed = run(recipe, tmp_path / "ema", *EMA, "training.updates=5", resume=True)
    straight = run(recipe, tmp_path / "straight", *EMA, "training.updates=5")
    assert same(named(changed, "ema"), named(straight, "ema"))
    assert after(tmp_path / "ema") == after(tmp_path / "straight")


@pytest.mark.parametrize(
    "stop", [("reward.after=3", "reward.then=SIGTERM"), ("eval.geneval.every=2", "eval.geneval.subset=9")]
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(recipe, tmp_path, monkeypatch, stop):
    """Also where the signal comes while the average is evaluated: what is saved are the weights."""
    changes = (*EMA, *stop)
    whole = run(recipe, tmp_path / "whole", *changes)
    monkeypatch.delenv("TOY_HARMLESS")
    with pytest.raises(SystemExit):
        run(recipe, tmp_path / "killed", *changes)
    made = json.loads((listed(tmp_path / "killed" / "checkpoints")[-1] / "training.json").read_text())
    assert 0 < made["update"] < 4
    assert made["ema"] == {"updates": made["update"]}
    monkeypatch.setenv("TOY_HARMLESS", "1")
    resumed = run(recipe, tmp_path / "killed", *changes, resume=True)
    assert all(same(named(whole, whose), named(resumed, whose)) for whose in ("parameter", "ema"))
    rows = [
        [{key: value for key, value in row.items() if not is_wall_clock(key)} for row in read_rows(folder)]
        for folder in (tmp_path / "whole", tmp_path / "killed")
    ]
    assert rows[0] == rows[1]


def test_the_average_of_adapters_is_what_is_painted(recipe, tmp_path):
    pytest.importorskip("peft", reason="needs maskrl[lora], which [test] brings")
    adapters = 'lora={rank=2, targets=["body.0", "body.2"]}'
    saved = run(recipe, tmp_path / "run", *EMA, adapters)
    found = resolve_recipe(None, tmp_path / "run", None, [], ("generators",))
    generator = build_sampler(found).generator
    trained = {name: p for name, p in generator.module.named_parameters() if p.requires_grad}
    assert same(trained, named(saved, "ema"))
    assert after(tmp_path / "run") == maskrl.load(tmp_path / "run").evaluate("geneval").numbers


def test_a_trainer_shows_the_average(recipe):
    trainer = maskrl.Trainer(recipe, settings={"ema.decay": 0.5, "ema.warmup": False})
    trainer.step()
    (first, *_) = trainer._built().learner.generator.module.parameters()
    before = first.detach().clone()
    shown = trainer.sample("red tiles", n=64, seed=1).pixels
    plain = maskrl.Trainer(recipe)
    plain.step()
    assert torch.equal(first, before)
    assert not torch.equal(shown, plain.sample("red tiles", n=64, seed=1).pixels)


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan", "high"])
def test_a_decay_that_is_none_is_one_line(cli, recipe, decay):
    done = cli("recipe", "check", recipe, "--set", f"ema.decay={decay}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "ema.decay: " in done.err
