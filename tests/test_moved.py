"""A run whose files were moved or changed, and commands that are given places which do not do."""

import shutil
from pathlib import Path

import pytest

from maskrl.runtime.metrics import read_rows

TOY = Path(__file__).with_name("toy_run.py")
FULL = """
import torch

from toy_run import Red


class Full(Red):
    def score(self, images, prompts):
        raise torch.OutOfMemoryError("tried to allocate 9 GiB. A long explanation follows.")
"""


@pytest.fixture
def home(toy_recipe, tmp_path):
    """A folder with a recipe, its plugins and prompts beside it, and a run."""
    folder = tmp_path / "A"
    folder.mkdir()
    shutil.copy(TOY, folder / "toy_run.py")
    (folder / "prompts.txt").write_text((tmp_path / "prompts.txt").read_text())
    (folder / "r.toml").write_text(toy_recipe.read_text().replace(str(TOY), "toy_run.py"))
    return folder


def test_a_run_whose_plugins_and_prompts_were_moved_is_resumed_with_their_new_places(cli, home, tmp_path):
    assert cli("train", "--recipe", home / "r.toml", "--run", home / "R").code == 0
    moved = home.rename(tmp_path / "B")
    gone = cli("train", "--run", moved / "R", "--resume", "--set", "training.updates=3")
    assert gone.code == 2
    assert "what was moved is found again by --set" in gone.err
    assert f"copies of the run's files with code are in '{moved}/R/plugins'" in gone.err
    places = [f"generator.name={moved}/toy_run.py:ToyGenerator", f"reward.name={moved}/toy_run.py:Red"]
    places += [f"prompts.train={moved}/prompts.txt", "training.updates=3"]
    found = cli(
        "train", "--run", moved / "R", "--resume", *(part for place in places for part in ("--set", place))
    )
    assert found.code == 0, found.err
    assert [row["update"] for row in read_rows(moved / "R") if row["kind"] == "update"] == [1, 2, 3]
    other = cli(
        "train", "--recipe", moved / "r.toml", "--run", moved / "R", "--resume", "--set=training.updates=4"
    )
    assert other.code == 0, other.err


def test_copies_are_named_where_code_has_changed_and_not_where_prompts_have(cli, home):
    assert cli("train", "--recipe", home / "r.toml", "--run", home / "R").code == 0
    more = ("train", "--run", home / "R", "--resume", "--set", "training.updates=3")
    prompts = (home / "prompts.txt").read_text()
    (home / "prompts.txt").write_text(f"{prompts}another\n")
    changed = cli(*more)
    assert (changed.code, "the contents of prompts are not" in changed.err) == (2, True)
    assert "copies of files" not in changed.err
    (home / "prompts.txt").write_text(prompts)
    code = (home / "toy_run.py").read_text()
    (home / "toy_run.py").write_text(f"{code}\n# another\n")
    changed = cli(*more)
    assert (changed.code, f"(copies of files with code are in '{home}/R/plugins')" in changed.err) == (
        2,
        True,
    )
    (copy,) = (home / "R/plugins").rglob("toy_run.py")
    (home / "toy_run.py").write_bytes(copy.read_bytes())  # as the message says
    assert cli(*more).code == 0


def test_a_run_is_not_resumed_with_fewer_updates_than_it_has_made(cli, toy_recipe, tmp_path):
    run = tmp_path / "run"
    assert cli("train", "--recipe", toy_recipe, "--run", run).code == 0
    before = (run / "recipe.toml").read_text()
    fewer = cli("train", "--run", run, "--resume", "--set", "training.updates=1")
    assert fewer.code == 2
    assert f"training.updates = 1, but the run in '{run}' has made 2 already; give 2 or more" in fewer.err
    assert (run / "recipe.toml").read_text() == before
    assert cli("train", "--run", run, "--resume", "--set", "training.updates=2").code == 0


@pytest.mark.parametrize("out", [".", "/", "folder"])
def test_a_picture_needs_a_name(cli, toy_recipe, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    refused = cli("sample", "red", "--recipe", toy_recipe, "--out", out)
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert f"--out '{out}' is a folder: name the picture, " in refused.err


def test_there_must_be_a_run_to_resume(cli, tmp_path):
    refused = cli("train", "--run", tmp_path / "nothere", "--resume")
    assert (refused.code, f"there is no run in '{tmp_path}/nothere'" in refused.err) == (2, True), refused.err


def test_a_full_device_ends_an_evaluation_in_a_line_that_says_what_to_do(cli, toy_recipe, tmp_path):
    (tmp_path / "full.py").write_text(FULL)
    reward = ("--reward", f"{tmp_path}/full.py:Full")
    full = cli("eval", "reward", *reward, "--recipe", toy_recipe, "--prompts", tmp_path / "prompts.txt")
    assert (full.code, full.err.count("\n")) == (4, 1), full.err
    assert "the device is out of memory (tried to allocate 9 GiB); take fewer images at a time" in full.err
    advice = ("--set", "eval.reward.batch=1")  # as the message says
    again = cli("eval", "reward", "--recipe", toy_recipe, "--prompts", tmp_path / "prompts.txt", *advice)
    assert again.code == 0, again.err
