"""Every command, on a toy world, in this process."""

import json
import re
from pathlib import Path

import pytest
from conftest import TOY
from PIL import Image
from toy_run import geneval_prompts

from maskrl.recipe import read_recipe

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")


@pytest.fixture
def toy_eval(toy_recipe: Path) -> Path:
    """The toy recipe with an evaluation."""
    prompts = toy_recipe.with_name("geneval.jsonl")
    prompts.write_text(geneval_prompts())
    with toy_recipe.open("a") as file:
        file.write(
            f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 2\n'
        )
    return toy_recipe


def test_help_names_every_command(cli):
    help_text = cli("--help")
    assert help_text.code == 0
    for command in ("train", "sample", "eval", "recipe", "plugins", "check"):
        assert f" {command} " in help_text.out


def test_version(cli):
    assert re.fullmatch(r"maskrl \d+\.\d+\.\d+\n", cli("--version").out)


def test_plugins_list_shows_name_package_and_class(cli, install):
    install("maskrl-future", "", {"maskrl.rewards.v2": {"better": "maskrl_future:Better"}}, version="3.0")
    lines = cli("plugins", "list").out.splitlines()
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert rows[0] == ["kind", "name", "package", "class"]
    assert ["transitions", "ar", "maskrl 0.1.0", "maskrl.transitions.ar:Ar"] in rows
    other = "maskrl-future 3.0 (for version 2 of the interface)"
    assert ["rewards", "better", other, "maskrl_future:Better"] in rows


def test_plugins_check_passes_for_the_built_ins(cli):
    result = cli("plugins", "check")
    assert result.code == 0, result.out
    assert "ok      transitions maskrl/p_theta1: keeps its contract" in result.out


def test_plugins_check_names_every_broken_one_and_goes_on(cli, install):
    code = """
from maskrl.interfaces import StepReducer
class Bad(StepReducer):
    def rollout_steps(self, num_steps): return num_steps + 1
    def train_steps(self, rollout_steps, stream): 1 / 0
class Worse(Bad):
    def rollout_steps(self, num_steps): return num_steps
"""
    targets = {"bad": "maskrl_bad:Bad", "worse": "maskrl_bad:Worse", "absent": "maskrl_bad:Absent"}
    install("maskrl-bad", code, {"maskrl.reducers.v1": targets})
    result = cli("plugins", "check")
    assert result.code == 3
    assert "3 of " in result.err
    broken = [line for line in result.out.splitlines() if line.startswith("broken")]
    reasons = ["Absent", r"rollout_steps\(1\) is 2", "ZeroDivisionError"]
    assert len(broken) == 3
    for line, reason in zip(broken, reasons, strict=True):
        assert re.search(reason, line), line
    assert "ok      transitions maskrl/ar" in result.out


BRIGHT = """
from maskrl.interfaces import RewardModel
class Bright(RewardModel):
    def score(self, images, prompts): return images.mean(dim=(1, 2, 3))
class Batch(RewardModel):
    def score(self, images, prompts): return images.mean(dim=(1, 2, 3)) - images.mean()
class Plain:
    pass
"""


def test_plugins_check_runs_the_checks_of_a_reward_that_needs_no_weights(cli, install):
    install(
        "maskrl-bright",
        BRIGHT,
        {"maskrl.rewards.v1": {"bright": "maskrl_bright:Bright", "batch": "maskrl_bright:Batch"}},
    )
    result = cli("plugins", "check", "bright", "maskrl-bright/batch")
    assert result.out.splitlines()[0] == "ok      rewards maskrl-bright/bright: keeps its contract"
    assert "broken  rewards maskrl-bright/batch: " in result.out
    assert "depends on the rest of its batch" in result.out
    assert (result.code, result.err) == (3, "maskrl: 1 of 2 components are broken\n")


def test_plugins_check_takes_a_class_in_a_file(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(BRIGHT)
    assert cli("plugins", "check", "mine.py:Bright").out == "ok      mine.py:Bright: keeps its contract\n"
    plain = cli("plugins", "check", "mine.py:Plain")
    assert (
        "broken  mine.py:Plain: 'mine.py:Plain' is no subclass of an interface in maskrl.interfaces"
        in plain.out
    )
    assert plain.code == 3
    assert "holds no 'Brightt'; did you mean 'Bright'?" in cli("plugins", "check", "mine.py:Brightt").out
    assert "there is no file" in cli("plugins", "check", "none.py:Bright").out


def test_plugins_check_of_an_unknown_name_is_the_users_mistake(cli):
    result = cli("plugins", "check", "p_theta3")
    assert result.code == 2
    assert "no component is called 'p_theta3'; did you mean 'p_theta" in result.err


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit('bye')"])
def test_a_plugin_that_exits_at_import_ends_nobody_else(cli, install, code, tmp_path, monkeypatch):
    install("maskrl-exits", code, {"maskrl.rewards.v1": {"exits": "maskrl_exits:Exits"}})
    result = cli("plugins", "check", "exits", "ar")
    assert "broken  rewards maskrl-exits/exits: " in result.out
    assert "does not load: SystemExit" in result.out
    assert "ok      transitions maskrl/ar: keeps its contract" in result.out
    assert result.code == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(code)
    assert "does not load: SystemExit" in cli("plugins", "check", "mine.py:Mine").out


@pytest.mark.parametrize(
    ("group", "meant"), [("maskrl.reward.v1", "maskrl.rewards.v1"), ("maskrl_rewards", "maskrl.rewards.v1")]
)
def test_a_misspelt_group_is_said_with_the_nearest_one(cli, install, group, meant):
    install("maskrl-lost", BRIGHT, {group: {"bright": "maskrl_lost:Bright"}})
    complaint = f"maskrl-lost: 'bright' is offered in {group!r}, which is no group of maskrl's; did you mean {meant!r}?"
    assert f"warning: {complaint}" in cli("plugins", "list").err
    result = cli("plugins", "check")
    assert f"broken  {complaint}" in result.out
    assert result.code == 3


def test_recipe_show_prints_a_recipe_with_every_default(cli, toy_recipe, tmp_path):
    shown = cli("recipe", "show", toy_recipe, "--set", "grpo.group_size=5")
    assert shown.code == 0
    again = tmp_path / "again.toml"
    again.write_text(shown.out)
    assert read_recipe(again) == read_recipe(toy_recipe, ["grpo.group_size=5"])


def test_recipe_check(cli, toy_eval):
    checked = cli("recipe", "check", toy_eval)
    assert checked.code == 0
    assert "fine (3 prompts" in checked.out
    toy_eval.with_name("geneval.jsonl").write_text("")
    assert cli("recipe", "check", toy_eval).code == 2


def test_train_resume_sample_and_evaluate_a_run(cli, toy_eval, tmp_path):
    run = tmp_path / "runs" / "toy"
    trained = cli("train", "--recipe", toy_eval, "--run", run, "--set", "training.updates=1", "--quiet")
    assert trained.code == 0, trained.err
    assert trained.out == f"run: {run}\n"
    assert cli("train", "--run", run, "--resume", "--quiet").code == 0

    grid = tmp_path / "grid.png"
    assert cli("sample", "red tiles", "--run", run, "--num", 5, "--out", grid).code == 0
    with Image.open(grid) as image:
        assert image.width > image.height  # four columns, two rows

    out = tmp_path / "results"
    assert cli("eval", "geneval", "--run", run, "--out", out).code == 0
    after = json.loads((run / "eval" / "geneval" / "after" / "summary.json").read_text())
    again = json.loads((out / "geneval" / "summary.json").read_text())
    assert again["numbers"] == after["numbers"]
    assert (out / "geneval" / "results.jsonl").read_text() == (
        run / "eval" / "geneval" / "after" / "results.jsonl"
    ).read_text()
    assert again["provenance"]["checkpoint"] == str(run / "checkpoints" / "update_00001" / "generator")


def test_the_default_run_folder_lies_in_runs(cli, toy_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("train", "--recipe", toy_recipe, "--set", "training.updates=0", "--quiet").code == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"toy-\d{8}-\d{6}", run.name)


def test_the_same_seed_paints_the_same_grid(cli, toy_recipe, tmp_path):
    grids = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"{number}.png"
        options = ["--recipe", toy_recipe, "--num", 3, "--seed", seed, "--steps", 2, "--guidance", 0.5]
        assert cli("sample", "red", *options, "--out", out).code == 0
        grids.append(out.read_bytes())
    assert grids[0] == grids[1] != grids[2]


def test_eval_geneval_tabulates_every_task(cli, toy_eval, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without --out results go to a folder below runs
    result = cli("eval", "geneval", "--recipe", toy_eval, "--images-per-prompt", 1, "--steps", 2)
    assert result.code == 0, result.err
    for task in (*TASKS, "overall"):
        assert task in result.out
    assert "12 images" in result.out


def test_prompts_that_cannot_be_judged_are_refused_before_anything_is_painted(cli, toy_eval, tmp_path):
    (tmp_path / "dogs.jsonl").write_text('{"text": "a dog"}')
    out = ("--out", tmp_path / "out")
    refused = cli("eval", "geneval", "--recipe", toy_eval, "--prompts", tmp_path / "dogs.jsonl", *out)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "'a dog'" in refused.err
    assert not (tmp_path / "out").exists()


def test_eval_options_override_the_recipe(cli, toy_eval, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.jsonl").write_text(geneval_prompts().replace("poppy", "leaf"))
    options = ["--prompts", "other.jsonl", "--guidance", 2.5, "--set", "seed=4", "--out", tmp_path / "out"]
    assert cli("eval", "geneval", "--recipe", toy_eval, *options).code == 0
    settings = json.loads((tmp_path / "out" / "geneval" / "summary.json").read_text())["settings"]
    assert settings["guidance"] == 2.5
    assert settings["seed"] == 4


def test_eval_needs_prompts(cli, toy_recipe):
    result = cli("eval", "geneval", "--recipe", toy_recipe)
    assert result.code == 2
    assert "--prompts SET" in result.err


def test_check_on_policy(cli, toy_recipe):
    result = cli("check", "on-policy", "--recipe", toy_recipe, "--set", "generator.double=true")
    assert result.code == 0, result.err
    assert "on policy: ratio 1" in result.out
    assert len(result.out.splitlines()) == 5  # heading, three steps, verdict


def test_check_on_policy_finds_a_network_that_is_random(cli, toy_recipe, tmp_path):
    code = TOY.read_text().replace(
        "return self.body(hidden)", "return (1 + torch.rand(1)) * self.body(hidden)"
    )
    (tmp_path / "noisy.py").write_text(code)
    result = cli(
        "check",
        "on-policy",
        "--recipe",
        toy_recipe,
        "--set",
        f"generator.name={tmp_path}/noisy.py:ToyGenerator",
    )
    assert result.code == 4
    assert "not on-policy at 3 of 3 steps" in result.err


def test_check_on_policy_finds_a_gradient_that_does_not_arrive(cli, toy_recipe, tmp_path):
    code = TOY.read_text().replace("return logits if", "logits = logits.detach()\n        return logits if")
    assert code != TOY.read_text()
    (tmp_path / "cut.py").write_text(code)
    settings = ["--set", f"generator.name={tmp_path}/cut.py:ToyGenerator", "--set", "generator.double=true"]
    result = cli("check", "on-policy", "--recipe", toy_recipe, *settings)
    assert result.code == 3
    assert (
        "'ToyGenerator' breaks its contract: logits are cut off from the parameters of module" in result.err
    )


def test_check_on_policy_names_what_raises_on_the_way_back(cli, toy_recipe, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from maskrl.transitions.p_theta2 import PTheta2\nimport torch\n"
        "class Back(torch.autograd.Function):\n"
        "    forward = staticmethod(lambda ctx, x: x.clone())\n"
        "    @staticmethod\n    def backward(ctx, gradient):\n        raise ValueError('no way back')\n"
        "class Bad(PTheta2):\n"
        "    def log_prob(self, *given):\n        return Back.apply(super().log_prob(*given))\n"
    )
    result = cli(
        "check", "on-policy", "--recipe", toy_recipe, "--set", f"transition.name={tmp_path}/bad.py:Bad"
    )
    assert result.code == 3
    assert "the transition 'Bad' raised ValueError: no way back" in result.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("targets", "wrong"),
    [('["nope"]', "has no such layers"), ('["body.0", "text"]', "'text' is no linear layer; name linear")],
)
@pytest.mark.parametrize("command", [("check", "on-policy"), ("train", "--run", "run")])
def test_layers_that_no_adapter_can_stand_beside_are_refused(
    cli, toy_recipe, command, targets, wrong, tmp_path, monkeypatch
):
    pytest.importorskip("peft", reason="needs maskrl[lora], which [test] brings")
    monkeypatch.chdir(tmp_path)
    result = cli(*command, "--recipe", toy_recipe, "--set", f"lora={{rank=2, targets={targets}}}")
    assert result.code == 2, result.err
    assert wrong in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_adapters_is_checked_with_them(cli, toy_recipe):
    pytest.importorskip("peft", reason="needs maskrl[lora], which [test] brings")
    adapters = ["--set", 'lora={rank=2, targets=["body.0", "body.2"]}', "--set", "generator.double=true"]
    result = cli("check", "on-policy", "--recipe", toy_recipe, *adapters)
    assert result.code == 0, result.err
    assert "on policy: ratio 1" in result.out
