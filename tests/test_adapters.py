"""Adapters are painted and evaluated as they were trained, not merged and rounded."""

import json
import shutil

import pytest
import torch
from toy_run import geneval_prompts

import maskrl
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


APART = ("export", "run", "--to", "apart", "--adapters", "apart")


def test_adapters_apart_are_painted_as_they_were_trained(cli, run):
    done = cli(*APART)
    assert (done.code, done.out) == (0, "apart: the adapters, and README.md, which says what they are\n"), (
        done.err
    )
    folder = run.parent / "apart"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    trained = logits(build_sampler(resolve_recipe(None, run, None, [], ("generators",))).generator)
    for recipe, changes in ((run / "recipe.toml", ["lora.rank=7"]), (run / "recipe.toml", ["lora="])):
        sent = resolve_recipe(str(recipe), None, folder, changes, ("generators",))
        assert torch.equal(logits(build_sampler(sent).generator), trained)
    assert torch.equal(logits(maskrl.load(run / "recipe.toml", checkpoint=folder).generator), trained)


def test_peft_itself_reads_them(cli, run):
    import peft

    assert cli(*APART).code == 0
    recipe = read_recipe(run / "recipe.toml", ["training.dtype=fp32"])
    base, sent = recipe.generator.build(), recipe.generator.build()
    model = peft.PeftModel.from_pretrained(sent.module, str(run.parent / "apart"))
    sent.module = model.base_model.model
    trained = build_sampler(
        resolve_recipe(None, run, None, ["training.dtype=fp32"], ("generators",))
    ).generator
    assert torch.equal(logits(sent), logits(trained))
    assert not torch.equal(logits(sent), logits(base))


def test_what_another_tool_wrote_is_read(cli, run, toy_recipe):
    import peft

    folder, recipe = toy_recipe.parent / "theirs", read_recipe(run / "recipe.toml", ["training.dtype=fp32"])
    theirs = recipe.generator.build()
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=r"body\.[02]", use_rslora=True, init_lora_weights=False
    )
    model = peft.get_peft_model(theirs.module, settings)
    model.save_pretrained(str(folder))
    theirs.module = model.base_model.model
    ours = resolve_recipe(str(run / "recipe.toml"), None, folder, ["training.dtype=fp32"], ("generators",))
    assert torch.equal(logits(build_sampler(ours).generator), logits(theirs))


def test_the_average_is_what_is_sent_where_it_is_what_was_trained(cli, toy_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    averaged = sets(CHANGES[0], "training.updates=3", "ema.decay=0.5")
    assert cli("train", "--recipe", toy_recipe, "--run", "run", *averaged).code == 0
    assert cli(*APART).code == 0
    run = tmp_path / "run"
    trained = logits(build_sampler(resolve_recipe(None, run, None, [], ("generators",))).generator)
    sent = resolve_recipe(str(run / "recipe.toml"), None, tmp_path / "apart", [], ("generators",))
    assert torch.equal(logits(build_sampler(sent).generator), trained)


@pytest.mark.parametrize(
    ("name", "contents", "said"),
    [
        ("adapter_config.json", "{", "is no configuration of adapters"),
        ("adapter_config.json", "{}", "holds no low-rank adapters: its peft_type is None"),
        ("adapter_config.json", '{"peft_type": "IA3"}', "its peft_type is IA3"),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "r": 2, "target_modules": ["head"]}',
            "has no such layers",
        ),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "r": 3, "target_modules": ["body.0", "body.2"]}',
            "the adapters were trained beside another one",
        ),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "r": 2, "target_modules": ["body.0"]}',
            "'body.2.lora_A.default.weight' is [2, 32] in the file and missing beside the network",
        ),
        (
            "adapter_config.json",
            '{"peft_type": "LORA", "r": "two", "target_modules": ["body.0"]}',
            "peft cannot use ",
        ),
        ("adapter_config.json", '{"peft_type": "LORA", "r": 2, "target_modules": "("}', "peft cannot use "),
        ("adapter_model.safetensors", "", "cannot read "),
    ],
)
def test_adapters_that_do_not_fit_are_a_line(cli, run, name, contents, said):
    assert cli(*APART).code == 0
    (run.parent / "apart" / name).write_text(contents)
    done = cli("sample", "a cat", "--recipe", run / "recipe.toml", "--checkpoint", "apart", "--out", "a.png")
    assert done.code == 2, done.err
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (run.parent / "a.png").exists()


def test_a_run_without_adapters_has_none_to_send(cli, toy_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("train", "--recipe", toy_recipe, "--run", "run").code == 0
    done = cli(*APART)
    assert (done.code, "leave out --adapters apart" in done.err, (tmp_path / "apart").exists()) == (
        2,
        True,
        False,
    )
