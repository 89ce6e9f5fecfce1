"""--json: one value on stdout and nothing else."""

import json
import math
import subprocess
import sys

import pytest
import torch
from PIL import Image
from toy_run import ToyGenerator, geneval_prompts

from maskrl.cli.output import print_json
from maskrl.evaluations.numbers import written
from maskrl.interfaces import Number


def read(done):
    assert done.code == 0, done.err
    return json.loads(done.out)


def number(told):
    """Return a number of mean and standard error, as a table has it."""
    return Number(told["mean"], math.nan if told["se"] is None else told["se"])


def tabulated(text):
    """Return the cells of a printed table by the name of their line."""
    lines = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line
    ]
    return {name: cells for name, *cells in lines}


@pytest.fixture
def toy_geneval(toy_recipe):
    """Options of an evaluation of the toy world: 12 images."""
    toy_recipe.with_name("geneval.jsonl").write_text(geneval_prompts())
    tiles = f"{toy_recipe.read_text().split('name = ')[1].split(':')[0][1:]}:Tiles"
    prompts = toy_recipe.with_name("geneval.jsonl")
    return ("--recipe", toy_recipe, "--prompts", prompts, "--detector", tiles, "--images-per-prompt", 1)


def test_what_is_no_number_is_null(capsys):
    print_json({"a": float("nan"), "b": [1.5, float("inf")], "c": ("x",)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None], "c": ["x"]}


def test_train_prints_the_run_alone(cli, toy_recipe, tmp_path):
    told = read(cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run", "--json"))
    assert told["run"] == str(tmp_path / "run")
    assert (told["updates"], told["before"], told["after"]) == (2, {}, {})


def test_sample_says_what_its_line_says(cli, toy_recipe, tmp_path):
    options = ("red tiles", "--recipe", toy_recipe, "--num", 2, "--seed", 3, "--out", tmp_path / "grid.png")
    told = read(cli("sample", *options, "--json"))
    assert told == {
        "text": "red tiles",
        "images": 2,
        "seed": 3,
        "steps": 3,
        "out": str(tmp_path / "grid.png"),
    }
    with Image.open(told["out"]) as grid:
        assert grid.width > 2 * 144
    assert cli("sample", *options).out == f"2 images of 'red tiles': {told['out']}\n"


def test_eval_and_compare_have_the_numbers_of_their_tables(cli, toy_geneval, tmp_path):
    folders = {}
    other = ToyGenerator(ToyGenerator.Config())
    torch.nn.init.zeros_(other.module.body[-1].weight)
    other.save(tmp_path / "other")
    for name, weights in (("a", ()), ("b", ("--checkpoint", tmp_path / "other"))):
        options = (*toy_geneval, *weights, "--out", tmp_path / name)
        told = read(cli("eval", "geneval", *options, "--json"))
        shown = cli("eval", "geneval", *options).out
        assert (told["evaluation"], told["images"]) == ("geneval", 12)
        assert {key: f"{one['mean']:.3f}" for key, one in told["numbers"].items()} == {
            key: cells[0] for key, cells in tabulated(shown).items() if key in told["numbers"]
        }
        assert shown.splitlines()[0].startswith(told["label"])
        assert json.loads((tmp_path / name / "geneval" / "summary.json").read_text())["numbers"].keys() == (
            told["numbers"].keys()
        )
        folders[name] = told["folder"]
    told = read(cli("eval", "compare", folders["a"], folders["b"], "--json"))
    shown = cli("eval", "compare", folders["a"], folders["b"]).out
    assert told["paired"] is True
    assert {
        key: [
            written(number(one[side]), sign=side == "difference")
            for side in ("first", "second", "difference")
        ]
        for key, one in told["numbers"].items()
    } == {key: cells[:3] for key, cells in tabulated(shown).items() if key in told["numbers"]}


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "a", "--recipe", "nothing_like_it"),
        ("eval", "geneval", "--recipe", "nothing_like_it"),
        ("eval", "compare", "nowhere", "nothing"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_mistake_is_one_line_on_stderr_and_nothing_on_stdout(cli, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli(*words, "--json")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "nothing_like_it" in done.err or "nowhere" in done.err


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
