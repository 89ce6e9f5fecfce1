"""A run's folder belongs to one recipe, and says so before anything is lost."""

from datetime import datetime
from pathlib import Path

import pytest

from maskrl.errors import RecipeError, TrainingError
from maskrl.recipe import read_recipe
from maskrl.runtime.folder import default_folder, open_folder


def test_a_new_run_saves_its_recipe(toy_recipe, tmp_path):
    recipe, run = read_recipe(toy_recipe), tmp_path / "deep" / "run"
    open_folder(run, recipe, resume=False)
    assert read_recipe(run / "recipe.toml") == recipe
    assert [path.name for path in run.iterdir()] == ["recipe.toml"]
    open_folder(run, recipe, resume=True)


def test_a_run_is_not_begun_twice(toy_recipe, tmp_path):
    open_folder(tmp_path / "run", read_recipe(toy_recipe), resume=False)
    with pytest.raises(RecipeError, match="holds this run already; add --resume"):
        open_folder(tmp_path / "run", read_recipe(toy_recipe), resume=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_another_recipe_is_left_alone(toy_recipe, tmp_path, resume):
    open_folder(tmp_path / "run", read_recipe(toy_recipe), resume=False)
    before = (tmp_path / "run" / "recipe.toml").read_text()
    with pytest.raises(
        RecipeError, match=r"another recipe: grpo.group_size is 4 there and 5 here, and 1 more"
    ):
        open_folder(tmp_path / "run", read_recipe(toy_recipe, ["grpo.group_size=5", "seed=1"]), resume)
    assert (tmp_path / "run" / "recipe.toml").read_text() == before


def test_there_must_be_something_to_resume(toy_recipe, tmp_path):
    with pytest.raises(RecipeError, match="holds no run to resume"):
        open_folder(tmp_path / "run", read_recipe(toy_recipe), resume=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_is_left_alone(toy_recipe, tmp_path):
    with pytest.raises(RecipeError, match="is not empty and holds no run"):
        open_folder(tmp_path, read_recipe(toy_recipe), resume=False)


def test_a_damaged_recipe_in_the_folder_is_named(toy_recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("seed =")
    with pytest.raises(RecipeError, match=r"recipe\.toml' is damaged"):
        open_folder(tmp_path / "run", read_recipe(toy_recipe), resume=True)


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_place_that_cannot_be_written_is_named(toy_recipe, tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=f"cannot write the run folder '.*{place}'"):
        open_folder(tmp_path / place, read_recipe(toy_recipe), resume=False)


def test_the_default_folder_is_named_after_recipe_and_time():
    assert default_folder("clip", datetime(2026, 11, 20, 9, 5, 7)) == Path("runs/clip-20261120-090507")
