"""Trained weights in a folder to send to somebody, with a card that says nothing of the trainer's disk."""

import json
import shutil

import pytest
from conftest import TOY
from safetensors.torch import load_file
from toy_run import geneval_prompts

from maskrl.errors import RecipeError, TrainingError
from maskrl.library.export import FOLDER, export
from maskrl.recipe import read_recipe
from maskrl.training.loop import train


@pytest.fixture
def run(toy_recipe, tmp_path):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    section = f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\n'
    toy_recipe.write_text(toy_recipe.read_text() + section)
    train(read_recipe(toy_recipe, ["checkpoint.every=1"]), tmp_path / "run", resume=False, display=False)
    return tmp_path / "run"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_weights_and_a_card(cli, run, tmp_path):
    done = cli("export", run, "--to", tmp_path / "mine")
    assert (done.code, done.out) == (
        0,
        f"{tmp_path / 'mine'}: the weights, and README.md, which says what they are\n",
    )
    found = contents(tmp_path / "mine")
    card = found.pop("README.md").decode()
    assert found == contents(run / "checkpoints" / "update_00002" / "generator")
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "mine").rglob("*")), (
        "not for others"
    )
    assert card.startswith("---\nlibrary_name: maskrl\n")
    assert "# ToyGenerator, after 2 updates of reinforcement learning" in card
    summary = json.loads((run / "eval" / "geneval" / "after" / "summary.json").read_text())
    assert f"| {summary['numbers']['overall']['mean']:.3f}" in card
    prompts = json.loads((run / "run.json").read_text())["contents"]["prompts"]
    assert f"| prompts | {prompts['number']}, sha256 {prompts['sha256'][:12]} |" in card
    assert str(tmp_path) not in card
    assert str(TOY.parent) not in card
    assert f'checkpoint = "{FOLDER}"' in card


def test_an_older_checkpoint_has_no_results_of_the_newest(run, tmp_path):
    export(run, tmp_path / "older", checkpoint="update_00001")
    card = (tmp_path / "older" / "README.md").read_text()
    assert "after 1 updates" in card
    assert "`geneval` was measured after update 2, not of these weights." in card
    assert "The run has measured nothing of these weights." in card
    first, second = (
        load_file(next(folder.rglob("*.safetensors")))
        for folder in (tmp_path / "older", run / "checkpoints" / "update_00002" / "generator")
    )
    assert any((first[name] != second[name]).any() for name in first)


def test_nothing_is_overwritten_and_a_broken_export_leaves_nothing(run, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    export(run, tmp_path / "empty")
    before = contents(tmp_path / "empty")
    with pytest.raises(RecipeError, match="is there already: name a new folder"):
        export(run, tmp_path / "empty")
    assert contents(tmp_path / "empty") == before

    def full(source, to, **options):
        (to / "half").write_text("")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(TrainingError, match=r"cannot write .*new.*No space left"):
        export(run, tmp_path / "new")
    assert not [path.name for path in tmp_path.iterdir() if "new" in path.name]


def test_what_cannot_be_exported_is_a_line(cli, run, tmp_path):
    done = cli("export", tmp_path, "--to", tmp_path / "mine")
    assert (done.code, "there is no run in" in done.err) == (2, True)
    done = cli("export", run, "--to", tmp_path / "mine", "--checkpoint", "update_00009")
    assert (done.code, "has no checkpoint 'update_00009'; it has update_00001, update_00002" in done.err) == (
        2,
        True,
    )
    (tmp_path / "weights").mkdir()
    done = cli("export", run, "--to", tmp_path / "mine", "--checkpoint", tmp_path / "weights")
    assert (done.code, "is no checkpoint of a run" in done.err, (tmp_path / "mine").exists()) == (
        2,
        True,
        False,
    )
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text("[")
    done = cli("export", run, "--to", tmp_path / "mine")
    assert (done.code, "is no TOML" in done.err) == (2, True)
    (run / "recipe.toml").write_text(recipe)
    weights = next((run / "checkpoints" / "update_00002" / "generator").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = cli("export", run, "--to", tmp_path / "mine")
    assert (done.code, "is damaged" in done.err, (tmp_path / "mine").exists()) == (4, True, False)


def test_what_was_exported_is_loaded_by_the_lines_of_the_card(cli, run, tmp_path, toy_recipe):
    export(run, tmp_path / "mine")
    options = ("--recipe", toy_recipe, "--num", 2)
    for name, weights in (("a", tmp_path / "mine"), ("b", run / "checkpoints" / "update_00002")):
        done = cli(
            "sample", "red tiles", *options, "--checkpoint", weights, "--out", tmp_path / f"{name}.png"
        )
        assert done.code == 0, done.err
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
