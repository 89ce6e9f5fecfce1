"""Around an evaluation: twice, side by side, after the weights changed under their path, moved, spoiled."""

import json
import shutil
from pathlib import Path

import pytest
from toy_run import geneval_prompts

from maskrl import files
from maskrl.evals.results import read_result

TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture
def world(toy_recipe, tmp_path):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    evaluation = f'prompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 2\n'
    toy_recipe.write_text(f"{toy_recipe.read_text()}[eval.geneval]\n{evaluation}")
    return toy_recipe


def train(cli, world, *changes):
    """Train at the same path again, whatever was there."""
    run = world.parent / "run"
    shutil.rmtree(run, ignore_errors=True)
    quick = (
        "--set",
        f"eval.geneval.prompts={world.parent}/geneval.jsonl",
        *(f"--set={change}" for change in changes),
    )
    assert cli("train", "--recipe", world, "--run", run, *quick).code == 0
    return run


def test_weights_that_changed_under_their_path_never_give_the_old_number(cli, world, tmp_path):
    run = train(cli, world)
    command = ("eval", "geneval", "--run", run, "--out", tmp_path / "out")
    assert cli(*command).code == 0
    before = (tmp_path / "out/geneval/summary.json").read_text()
    assert cli(*command).code == 0  # the same again
    train(cli, world, "training.learning_rate=0.5")
    again = cli(*command)
    assert again.code == 2
    assert "holds images of other settings: they differ in generator; choose another --out" in again.err
    assert (tmp_path / "out/geneval/summary.json").read_text() == before
    assert cli("eval", "geneval", "--run", run, "--out", tmp_path / "new").code == 0  # as the message says
    settings = json.loads((tmp_path / "new/images/settings.json").read_text())
    assert set(settings["generator"]["checkpoint"]) == {"sha256"}


def test_half_painted_images_are_not_finished_by_other_weights(cli, world, tmp_path):
    run = train(cli, world)
    command = ("eval", "geneval", "--run", run, "--out", tmp_path / "out")
    assert cli(*command).code == 0
    shutil.rmtree(tmp_path / "out/geneval")
    for image in sorted((tmp_path / "out/images").rglob("*.png"))[10:]:
        image.unlink()
    train(cli, world, "training.learning_rate=0.5")
    assert cli(*command).code == 2
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 10


def test_a_folder_of_results_has_one_owner(cli, world, tmp_path):
    with files.owned(tmp_path / "out"):
        beside = cli("eval", "geneval", "--recipe", world, "--out", tmp_path / "out")
    assert beside.code == 4
    assert "is being written by " in beside.err
    assert not (tmp_path / "out/images").exists()


def test_two_scores_in_one_folder_are_kept_apart(cli, world, tmp_path):
    images = tmp_path / "out" / "images"
    assert cli("eval", "geneval", "--recipe", world, "--out", tmp_path / "out").code == 0
    shapes = ("--model", "package:maskrl/shapes/weights/clip")
    first = cli("eval", "clip_score", "--images", images, "--out", tmp_path / "scores", *shapes)
    assert first.code == 0, first.err
    number = read_result(tmp_path / "scores/clip_score").numbers["mean"]
    import maskrl

    copy = tmp_path / "copy"
    shutil.copytree(Path(maskrl.__file__).parent / "shapes/weights/clip", copy)
    same = cli("eval", "clip_score", "--images", images, "--out", tmp_path / "scores", "--model", copy)
    assert same.code == 0, same.err  # the same weights under another name
    assert read_result(tmp_path / "scores/clip_score").numbers["mean"] == number
    weights = copy / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    other = cli("eval", "clip_score", "--images", images, "--out", tmp_path / "scores", "--model", copy)
    assert other.code == 2
    assert "holds results of other settings: they differ in reward" in other.err


def test_results_that_were_moved_are_still_of_the_same_images(cli, world, tmp_path):
    assert cli("eval", "geneval", "--recipe", world, "--out", tmp_path / "out").code == 0
    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert cli("eval", "geneval", "--recipe", world, "--out", tmp_path / "moved").code == 0


def test_results_without_a_name_get_folders_of_their_own(cli, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        assert cli("eval", "geneval", "--recipe", world, "--images-per-prompt", 1).code == 0
    folders = list((tmp_path / "runs").iterdir())
    assert len(folders) == 3
    assert all((folder / "geneval/summary.json").is_file() for folder in folders)


def test_a_run_whose_first_evaluation_was_changed_says_so(cli, world):
    run = train(cli, world, "checkpoint.every=1")
    rows = run / "eval/geneval/before/results.jsonl"
    rows.write_text(rows.read_text().replace('"correct": false', '"correct": true'))
    result = cli("train", "--run", run, "--resume", "--set", "training.updates=3")
    assert result.code == 4
    assert "is not what was written beside its summary.json" in result.err
    assert "delete " in result.err
    shutil.rmtree(run / "eval/geneval/before")
    assert cli("train", "--run", run, "--resume", "--set", "training.updates=3").code == 0
