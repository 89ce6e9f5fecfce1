"""Adapters are painted and evaluated as they were trained, not merged and rounded."""

import json
import shutil

import pytest
import torch
from toy_run import geneval_prompts

from maskrl.library.sources import build_sampler, resolve_recipe
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed, load
from maskrl.training.setup import set_up
from maskrl.training.state import restore
from maskrl.types import Prompt

pytest.importorskip("peft", reason="needs maskrl[lora], which [test] brings")
CHANGES = (
    'lora={rank=2, targets=["body.0", "body.2"]}',
    "training.dtype=bf16",
    "training.updates=3",
    "eval.geneval.prompts=geneval.jsonl",
    "tracking.sample_prompts=[]",
)


def sets(*changes):
    return [f"--set={change}" for change in changes]


@pytest.fixture
def run(cli, toy_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    text = (
        toy_recipe.read_text()
        + f'[eval.geneval]\ndetector = "{toy_recipe.parent}/tiles.py:Mine"\nimages_per_prompt = 8\n'
    )
    (tmp_path / "tiles.py").write_text("from toy_run import Tiles\n\n\nclass Mine(Tiles):\n    pass\n")
    toy_recipe.write_text(text)
    done = cli("train", "--recipe", toy_recipe, "--run", "run", *sets(*CHANGES))
    assert done.code == 0, done.err
    return tmp_path / "run"


def logits(generator):
    tokens = torch.randint(0, 4, (64, 6), generator=torch.Generator().manual_seed(0))
    condition = generator.encode([Prompt(f"prompt {i}") for i in range(64)])
    with torch.no_grad():
        return generator.logits(tokens, condition, None, torch.ones(64))  # the toy looks at no step


def test_what_is_rebuilt_is_what_was_trained_to_the_last_bit(run):
    checkpoint = load(listed(run / "checkpoints")[-1])
    setup = set_up(read_recipe(run / "recipe.toml"))
    restore(checkpoint, setup.state, setup.learning_rate)
    trained = logits(setup.learner.generator)
    rebuilt = logits(build_sampler(resolve_recipe(None, run, None, [], ("generators",))).generator)
    assert torch.equal(rebuilt, trained)
    merged = resolve_recipe(
        str(run / "recipe.toml"), None, checkpoint.folder / "generator", [], ("generators",)
    )
    assert not torch.equal(logits(build_sampler(merged).generator), trained)  # an export: rounded


def test_an_evaluation_of_the_run_says_what_the_run_said(cli, run):
    done = cli("eval", "geneval", "--run", run, "--out", "out")
    assert done.code == 0, done.err
    ours, theirs = (
        [json.loads(line)["correct"] for line in (folder / "results.jsonl").read_text().splitlines()]
        for folder in (run / "eval/geneval/after", run.parent / "out/geneval")
    )
    assert ours == theirs
    again = cli("eval", "geneval", "--run", run, "--out", "out")
    assert again.code == 0, again.err


def test_images_of_other_adapters_are_other_images(cli, run):
    assert cli("eval", "geneval", "--run", run, "--out", "out").code == 0
    shutil.rmtree(listed(run / "checkpoints")[-1])
    (run / "metrics.jsonl").unlink()
    more = cli("train", "--run", run, "--resume", "--set=training.updates=5")
    assert more.code == 0, more.err
    other = cli("eval", "geneval", "--run", run, "--out", "out")
    assert other.code in (2, 4)
    assert len(other.err.splitlines()) == 1
