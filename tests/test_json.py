"""--json: one value on stdout and nothing else."""

import json
import subprocess
import sys

import pytest

from maskrl.cli.output import print_json


def read(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_what_is_no_number_is_null(capsys):
    print_json({"a": float("nan"), "b": [1.5, float("inf")], "c": ("x",)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": ["x"]}


def test_train_prints_the_run_alone(cli, toy_recipe, tmp_path):
    told = read(cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run", "--json"))
    assert told["run"] == str(tmp_path / "run")
    assert (told["updates"], told["before"], told["after"]) == (2, {}, {})


def test_plugins_list(cli):
    offers = read(cli("plugins", "list", "--json"))
    clip = next(one for one in offers if (one["kind"], one["name"]) == ("rewards", "clip"))
    assert clip["target"] == "maskrl.rewards.clip:Clip"
    assert set(clip) == {"kind", "name", "package", "version", "target", "interface"}


def test_recipe_show(cli, toy_recipe):
    told = read(cli("recipe", "show", toy_recipe, "--json"))
    assert told["grpo"]["group_size"] == 4
    assert len(told["digest"]) == 12


def test_plan(cli):
    told = read(cli("plan", "--rate", "1", "--efficiency", "0.5", "--memory", "0", "--json"))
    assert told["fits"] is False
    assert told["peak_bytes"] > told["memory_bytes"]["weights"] == 4 * told["parameters"] > 0
    assert told["update_seconds"] == pytest.approx(sum(told["update_flops"].values()) / 5e11)


def test_the_shell_completes_commands_and_evaluations():
    def completed(words):
        asked = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_MASKRL_COMPLETE": "complete_bash",
        }
        code = "import sys; sys.argv = ['maskrl']; from maskrl.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PATH": "", **asked}, capture_output=True, text=True
        )
        return done.stdout.split()

    assert completed("maskrl re") == ["report", "recipe", "repro"]
    assert completed("maskrl eval g") == ["geneval"]
