"""What a user can do wrong: one line on stderr, and the right exit code."""

import sys

import processes
import pytest
from conftest import TOY

from maskrl.errors import (
    AmbiguousComponent,
    MaskRLError,
    PluginError,
    RecipeError,
    TrainingError,
    UnknownComponent,
    quote,
)
from maskrl.recipe import read_recipe


@pytest.mark.parametrize(
    ("error", "builtin", "code"),
    [
        (RecipeError, ValueError, 2),
        (UnknownComponent, LookupError, 2),
        (AmbiguousComponent, LookupError, 2),
        (PluginError, ImportError, 3),
        (TrainingError, RuntimeError, 4),
    ],
)
def test_each_error_is_also_the_builtin_it_specialises(error, builtin, code):
    assert issubclass(error, (MaskRLError, builtin))
    assert issubclass(error, builtin)
    assert error.exit_code == code


def test_a_prompt_is_quoted_in_one_short_line():
    assert quote("a red circle") == "'a red circle'"
    assert quote("x" * 60) == repr("x" * 60)
    assert quote("x" * 61) == repr("x" * 60 + "…")
    assert quote("a\nb") == r"'a\nb'"


def refused(result, code: int, *parts: str) -> None:
    assert result.code == code, result
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("maskrl: ")
    for part in parts:
        assert part in result.err


@pytest.mark.parametrize(
    ("override", "code", "parts"),
    [
        ("grpo.grup_size=3", 2, ["grpo.grup_size: unknown key; did you mean 'group_size'?"]),
        ("grpo.eps_low=high", 2, ["grpo.eps_low: input should be a valid number"]),
        ("reward.name=clp", 2, ["no reward is called 'clp'; did you mean 'clip'?"]),
        ("grpo.num_steps=99", 2, ["num_steps = 99", "6 tokens"]),
        ("grpo.group_size=1", 2, ["grpo.group_size", "not 1"]),
        ("prompts.train=empty.txt", 2, ["empty.txt", "holds no prompts"]),
        ("prompts.train=latin.txt", 2, ["latin.txt:1: is not UTF-8"]),
        ("prompts.train=absent.txt", 2, ["prompts.train", "absent.txt"]),
        ("reward.name=bomb.py:Bomb", 3, ["bomb.py:Bomb", "does not load: ZeroDivisionError"]),
        ("reward.after=1", 4, ["nan", "red tiles"]),
    ],
)
def test_training_refuses_what_is_wrong(cli, toy_recipe, tmp_path, override, code, parts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes("ein Käfer".encode("latin-1"))
    (tmp_path / "bomb.py").write_text("1 / 0")
    run = tmp_path / "run"
    refused(cli("train", "--recipe", toy_recipe, "--set", override, "--run", run, "--quiet"), code, *parts)


def test_a_missing_recipe(cli):
    refused(cli("train", "--recipe", "nowhere.toml"), 2, "there is no recipe 'nowhere.toml'", "shapes_clip")


def test_broken_toml_names_the_line(cli, tmp_path):
    (tmp_path / "broken.toml").write_text("seed = 0\n[grpo\n")
    refused(cli("recipe", "check", tmp_path / "broken.toml"), 2, "broken.toml", "line 2")


def test_several_mistakes_are_a_line_each(cli, toy_recipe):
    result = cli("recipe", "check", toy_recipe, "--set", "grpo.group_size=1", "--set", "reward.name=clp")
    assert result.code == 2
    assert len(result.err.splitlines()) == 2


def test_an_unwritable_run_folder(cli, toy_recipe, tmp_path):
    (tmp_path / "file").write_text("")
    run = tmp_path / "file" / "run"
    refused(
        cli("train", "--recipe", toy_recipe, "--run", run, "--quiet"),
        4,
        "cannot write in",
        str(run),
    )


def test_a_run_folder_of_another_recipe(cli, toy_recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(read_recipe(toy_recipe, ["seed=1"]).to_toml())
    refused(
        cli("train", "--recipe", toy_recipe, "--run", run, "--resume", "--quiet"),
        2,
        "belongs to another recipe: seed is 1 there and 0 here",
    )


def test_a_corrupted_checkpoint(cli, toy_recipe, tmp_path):
    run = tmp_path / "run"
    assert cli("train", "--recipe", toy_recipe, "--run", run, "--quiet").code == 0
    (file,) = run.glob("checkpoints/update_00002/generator/*")
    file.write_bytes(file.read_bytes()[:-1])
    for command in (["train", "--resume", "--quiet"], ["sample", "red"], ["eval", "geneval"]):
        refused(cli(*command, "--run", run), 4, "update_00002", "is damaged", file.name)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["train"], "--recipe R"),
        (["train", "--resume"], "--run DIR"),
        (["sample", "a cat", "--run", "nowhere"], "no run in 'nowhere'"),
        (["sample", "a cat", "--checkpoint", "nowhere"], "no checkpoint folder 'nowhere'"),
        (["sample", "a cat", "--run", "a", "--recipe", "b"], "leave out --recipe"),
    ],
)
def test_contradictory_or_missing_options(cli, arguments, part):
    refused(cli(*arguments), 2, part)


def test_a_run_without_a_checkpoint_cannot_be_sampled(cli, toy_recipe, tmp_path):
    (tmp_path / "recipe.toml").write_text(cli("recipe", "show", toy_recipe).out)
    refused(cli("sample", "red", "--run", tmp_path), 2, "has no checkpoint yet")


def test_a_usage_error_is_the_users(cli):
    assert cli("train", "--recpe", "x").code == 2


@pytest.mark.parametrize(
    ("signal", "code"), [pytest.param("SIGINT", 130, marks=pytest.mark.slow), ("SIGTERM", 143)]
)
def test_signals_end_with_their_own_codes(toy_recipe, tmp_path, signal, code):
    run = tmp_path / "run"
    settings = [f"reward.name={TOY}:Red", "reward.after=2", f"reward.then={signal}", "training.updates=50"]
    options = [part for setting in settings for part in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "maskrl",
        "train",
        "--recipe",
        toy_recipe,
        "--run",
        run,
        "--quiet",
        *options,
    ]
    done = processes.run(command, timeout=300)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["update_00002"]
