"""A benchmark that a package brings: listed, run on a folder, on a run and in training, killed, resumed, compared."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrl.evals.results import read_result, read_rows
from maskrl.runtime.metrics import read_rows as metrics_of

FOLDER = Path(__file__).with_name("benchmark_package")
CODE = (FOLDER / "brightness.py").read_text()
OFFER = {"maskrl.evaluations.v1": {"brightness": "acme_bench:Brightness"}}


@pytest.fixture
def installed(install):
    install("acme-bench", CODE, OFFER)


pytestmark = pytest.mark.usefixtures("installed")


def write_images(folder, values=(0.1, 0.3, 0.8)):
    """Two prompts and one that the benchmark is not about, each with two grey images."""
    for p, text in enumerate(("a dark room", "a bright room", "a room")):
        (folder / f"{p:05d}/samples").mkdir(parents=True)
        (folder / f"{p:05d}/metadata.jsonl").write_text(json.dumps({"prompt": text}))
        for i, value in enumerate((values[p], min(1, values[p] + 0.3))):
            Image.fromarray(np.full((6, 6, 3), round(255 * value), np.uint8)).save(
                folder / f"{p:05d}/samples/{i:05d}.png"
            )
    return folder


def test_it_is_listed_with_what_it_is_about_and_not_imported(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli("eval", "--help")
    assert "Compare the mean brightness of images with a word of their prompts." in " ".join(
        shown.out.split()
    )
    assert "acme_bench" not in __import__("sys").modules
    listed = cli("plugins", "list")
    assert "brightness" in listed.out
    assert cli("plugins", "check", "brightness").out.startswith("ok ")
    options = " ".join(cli("eval", "brightness", "--help").out.split())
    assert "--tolerance" in options
    assert "how far the mean may be from what the word says" in options


def test_it_judges_a_folder_without_a_recipe_and_without_a_generator(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("maskrl.recipe.read_recipe", lambda *a, **k: pytest.fail("a recipe was read"))
    images = write_images(tmp_path / "images")
    done = cli("eval", "brightness", "--images", images, "--out", tmp_path / "out", "--tolerance", "0.35")
    assert done.code == 0, done.err
    assert "Brightness (within 0.35), 4 images" in done.out
    result = read_result(tmp_path / "out/brightness")
    assert (result.evaluation, result.settings["evaluation"]["tolerance"]) == ("brightness", 0.35)
    assert result.numbers["right"].mean == 0.25  # 0.1 of the dark room alone
    assert result.numbers["right"].se == pytest.approx(0.25)
    assert result.numbers["distance"].mean == pytest.approx((0.1 + 0.4 + 0.7 + 0.4) / 4, abs=0.01)
    assert [row["filename"][:5] for row in read_rows(tmp_path / "out/brightness", result)] == [
        "00000"
    ] * 2 + ["00001"] * 2


def test_two_folders_are_compared_prompt_by_prompt_and_settings_are_heeded(cli, tmp_path):
    for name, values in (("a", (0.1, 0.3, 0)), ("b", (0.2, 0.6, 0))):
        images = write_images(tmp_path / name, values)
        assert cli("eval", "brightness", "--images", images, "--out", tmp_path / f"out-{name}").code == 0
    shown = cli("eval", "compare", tmp_path / "out-a/brightness", tmp_path / "out-b/brightness")
    assert shown.code == 0, shown.err
    assert "-0.100 ± 0.200" in shown.out  # distances: +0.1 of the dark room, -0.3 of the bright one
    again = cli("eval", "brightness", "--images", images, "--out", tmp_path / "out-b", "--tolerance", "0.1")
    assert again.code == 2
    assert "holds results of other settings: they differ in evaluation" in again.err


def test_results_of_a_benchmark_that_is_gone_are_compared_without_its_class(cli, tmp_path, monkeypatch):
    images = write_images(tmp_path / "images")
    for name in "ab":
        assert cli("eval", "brightness", "--images", images, "--out", tmp_path / name).code == 0
    monkeypatch.setattr("maskrl.evals.comparison.class_of", lambda result: None)
    shown = cli("eval", "compare", tmp_path / "a/brightness", tmp_path / "b/brightness")
    assert shown.code == 0
    assert "the evaluation 'brightness' does not load here, so prompts are not paired" in shown.err
    error = read_result(tmp_path / "a/brightness").numbers["distance"].se
    assert f"+0.000 ± {math.hypot(error, error):.3f}" in shown.out


@pytest.fixture
def trained(cli, toy_recipe, tmp_path):
    """A run of two updates that makes the benchmark before, after each and at the end."""
    toy_recipe.write_text(
        f"{toy_recipe.read_text()}[eval.brightness]\nevery = 1\nsubset = 1\ntolerance = 0.4\n"
    )
    done = cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run", "--set", "checkpoint.every=1")
    assert done.code == 0, done.err
    assert "Brightness (within 0.4) before and after (12 images each)" in done.out
    return tmp_path / "run"


def rows_of(run):
    keys = ("when", "update", "right", "brightness", "brightness_se", "brightness_distance")
    rows = [row for row in metrics_of(run) if row["kind"] == "eval"]
    return [{key: row[key] for key in keys if key in row} for row in rows]


def test_a_run_makes_it_and_a_command_finds_the_same_numbers(cli, trained, tmp_path):
    rows = rows_of(trained)
    assert [(row["when"], row["update"]) for row in rows] == [
        ("before", 0),
        ("during", 1),
        ("after", 2),
    ]
    assert all({"brightness", "brightness_se", "brightness_distance"} <= row.keys() for row in rows)
    assert cli("eval", "brightness", "--run", trained, "--out", tmp_path / "out").code == 0
    after, found = (
        read_result(folder) for folder in (trained / "eval/brightness/after", tmp_path / "out/brightness")
    )
    for name, number in after.numbers.items():  # files are read in another order of memory
        assert found.numbers[name].mean == pytest.approx(number.mean, abs=1e-7)
    assert found.settings == after.settings
    assert rows[-1]["brightness"] == after.numbers["right"].mean
    same = cli("eval", "compare", trained / "eval/brightness/before", tmp_path / "out/brightness")
    assert same.code == 0, same.err


def test_a_resumed_run_is_the_one_that_was_never_stopped(cli, trained, toy_recipe, tmp_path):
    stopped = tmp_path / "stopped"
    once = (
        "--recipe",
        toy_recipe,
        "--run",
        stopped,
        "--set",
        "checkpoint.every=1",
        "--set",
        "training.updates=1",
    )
    assert cli("train", *once).code == 0
    more = ("--set", "training.updates=2", "--set", "eval.brightness.batch=5")
    done = cli("train", "--run", stopped, "--resume", *more)
    assert done.code == 0, done.err
    assert rows_of(stopped)[-1] == rows_of(trained)[-1]
    changed = cli("train", "--run", stopped, "--resume", "--set", "eval.brightness.tolerance=0.1")
    assert changed.code == 2
    assert "the contents of eval.brightness are not those with which the run" in changed.err


def test_a_killed_evaluation_judges_nothing_twice(cli, tmp_path, monkeypatch):
    import acme_bench

    images = write_images(tmp_path / "images")
    whole, seen = acme_bench.Brightness.judge, []

    def mortal(self, pixels, prompts):
        seen.extend(pixels)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return whole(self, pixels, prompts)

    monkeypatch.setattr(acme_bench.Brightness, "judge", mortal)
    command = (
        "eval",
        "brightness",
        "--images",
        images,
        "--out",
        tmp_path / "out",
        "--set",
        "eval.brightness.batch=1",
    )
    assert cli(*command).code == 130
    assert cli(*command).code == 0
    assert len(seen) == 3 + 2
    assert read_result(tmp_path / "out/brightness").images == 4


OWN_SETTINGS = "    images_per_prompt = 2\n\n    def settings(self):\n        return {1: {2}}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return [{", "return [{}] + [{", "judge returned 5 rows for 4 images"),
        ('"distance": distance}', '"distance": float("nan")}', "returned a row that JSON cannot hold"),
        ('{"right":', '{"se":', "calls a number 'se'"),
        ("    images_per_prompt = 2", OWN_SETTINGS, "settings returned what JSON cannot hold"),
        (
            "tolerance: float = 0.5",
            "tolerance: float = 0.5\n        prompts: str = ''",
            "has a setting 'prompts'",
        ),
        ("wanted = [", "raise RuntimeError('mine')\n        wanted = [", "raised RuntimeError: mine"),
    ],
)
def test_a_benchmark_that_breaks_its_contract_is_named(cli, install, tmp_path, old, new, said):
    code = CODE.replace(old, new, 1)
    assert code != CODE
    install("broken-bench", code, {"maskrl.evaluations.v1": {"broken": "broken_bench:Brightness"}})
    refused = cli("eval", "broken", "--images", write_images(tmp_path / "images"), "--out", tmp_path / "out")
    assert (refused.code, refused.err.count("\n")) == (3, 1), refused.err
    assert said in refused.err
    assert not (tmp_path / "out/broken/summary.json").exists()


def test_a_distribution_is_measured_in_training_and_in_a_folder_alike(cli, toy_recipe, tmp_path):
    shutil.copy(FOLDER / "colours.py", tmp_path)
    section = '[eval.colours]\nname = "colours.py:Colours"\nprompts = "prompts.txt"\nimages_per_prompt = 3\n'
    other = "[eval.again]\nname = 'brightness'\nimages_per_prompt = 1\n"  # two sections, each with its own
    toy_recipe.write_text(toy_recipe.read_text() + section + other)
    run = tmp_path / "run"
    trained = cli("train", "--recipe", toy_recipe, "--run", run)
    assert trained.code == 0, trained.err
    assert "colours: Colours before and after (9 images each)" in trained.out
    after = read_result(run / "eval/colours/after")
    assert list(after.numbers) == ["spread", "light"]
    assert (run / "eval/again/after/results.jsonl").is_file()
    assert not (run / "eval/colours/after/results.jsonl").exists()
    shown = [row for row in metrics_of(run) if row["kind"] == "eval" and "colours" in row]
    assert [row["when"] for row in shown] == ["before", "after"]
    assert shown[1].keys() == {
        "kind",
        "update",
        "when",
        "colours",
    }  # what has no error is in the results alone
    command = ("eval", f"{tmp_path}/colours.py:Colours", "--run", run, "--out", tmp_path / "out", "--prompts")
    found = cli(*command, tmp_path / "prompts.txt", "--images-per-prompt", 3)
    assert found.code == 0, found.err
    again = read_result(tmp_path / "out/Colours")
    for name, number in after.numbers.items():
        assert again.numbers[name].mean == pytest.approx(number.mean, rel=1e-6)
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted((tmp_path / "out/images").rglob("*.png"))):
        (flat / f"{i}.png").write_bytes(path.read_bytes())
    assert (
        cli("eval", f"{tmp_path}/colours.py:Colours", "--images", flat, "--out", tmp_path / "more").code == 0
    )
    assert read_result(tmp_path / "more/Colours").numbers["spread"].mean == again.numbers["spread"].mean
