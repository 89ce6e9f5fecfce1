"""A run's folder belongs to one run with one owner, and says so before anything is lost."""

import json
import shutil
from datetime import datetime
from pathlib import Path

import pytest

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.recipe import read_recipe
from maskrl.runtime.folder import (
    FREE,
    begin,
    check_folder,
    check_saved,
    default_folder,
    flat,
    note_saved,
)
from maskrl.runtime.record_file import RECORD, read_record, write_record

CONTENTS = {"prompts": {"sha256": "ab"}, "reward": {"class": "x:Y", "model": {"sha256": "cd"}}}


def start(run, recipe, resume=False, contents=CONTENTS):
    check_folder(run, resume)
    with files.owned(run):
        return begin(run, recipe, contents, {"commit": None})


def test_a_new_run_saves_its_recipe_and_its_record(toy_recipe, tmp_path):
    recipe, run = read_recipe(toy_recipe), tmp_path / "deep" / "run"
    assert start(run, recipe) == []
    assert read_recipe(run / "recipe.toml").to_toml() == recipe.to_toml()
    assert read_record(run)["contents"] == CONTENTS
    assert start(run, recipe, resume=True) == []
    assert len(read_record(run)["starts"]) == 2


def test_another_version_of_a_package_is_said(toy_recipe, tmp_path):
    recipe, run = read_recipe(toy_recipe), tmp_path / "run"
    with files.owned(run):
        begin(run, recipe, CONTENTS, {"versions": {"torch": "2.1", "maskrl-pickscore": "0.1"}})
        now = {"versions": {"torch": "2.1", "maskrl-pickscore": "0.2", "numpy": "2"}}
        said = begin(run, recipe, CONTENTS, now)
        assert said == ["continuing with maskrl-pickscore 0.2, was 0.1: numbers may differ"]
        assert begin(run, recipe, CONTENTS, now) == []


def test_other_contents_of_what_watches_are_said_and_of_all_else_refused(toy_recipe, tmp_path):
    recipe, run = read_recipe(toy_recipe), tmp_path / "run"
    watched = {"watch.gold": {"class": "x:Y", "model": {"sha256": "ab"}}}
    other = {"watch.gold": {"class": "x:Y", "model": {"sha256": "cd"}}}
    start(run, recipe, contents={**CONTENTS, **watched})
    said = start(run, recipe, resume=True, contents={**CONTENTS, **other})
    assert said == [
        "the contents of watch.gold are not those with which the run began: model.sha256 was 'ab' and is 'cd'"
    ]
    assert start(run, recipe, resume=True) == []  # it is gone: that is told by the settings
    with pytest.raises(
        RecipeError, match=r"the contents of reward are not .* model.sha256 was 'cd' and is 'x'"
    ):
        start(
            run,
            recipe,
            resume=True,
            contents={**CONTENTS, "reward": {"class": "x:Y", "model": {"sha256": "x"}}},
        )


def test_a_start_that_was_killed_leaves_a_run_that_can_be_resumed(toy_recipe, tmp_path, monkeypatch):
    recipe, run = read_recipe(toy_recipe), tmp_path / "run"

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("maskrl.runtime.folder._copy_plugins", die)
        with pytest.raises(KeyboardInterrupt):
            start(run, recipe)
    start(run, recipe, resume=True)
    assert list(run.glob("plugins/*/toy_run.py"))


def test_a_run_is_not_begun_twice(toy_recipe, tmp_path):
    start(tmp_path / "run", read_recipe(toy_recipe))
    with pytest.raises(RecipeError, match="holds a run already; add --resume"):
        check_folder(tmp_path / "run", resume=False)


def test_a_run_of_another_recipe_is_left_alone(toy_recipe, tmp_path):
    run = tmp_path / "run"
    start(run, read_recipe(toy_recipe))
    before = (run / "recipe.toml").read_text()
    other = read_recipe(toy_recipe, ["grpo.group_size=5", "seed=1"])
    with pytest.raises(
        RecipeError, match=r"another recipe: grpo.group_size is 4 there and 5 here, and 1 more"
    ):
        start(run, other, resume=True)
    assert (run / "recipe.toml").read_text() == before


@pytest.mark.parametrize(
    "change",
    [
        *(
            "training.micro_batch=3",
            "training.score_batch=1",
            "training.rollout_batch=2",
            "training.updates=9",
        ),
        *("training.reward_batch=1", "training.max_seconds=5.0", "checkpoint.every=3", "checkpoint.keep=1"),
        *(
            "tracking.samples_every=7",
            "watch.every=3",
            "training.activation_checkpointing=true",
        ),
    ],
)
def test_memory_speed_and_bookkeeping_may_change_and_are_said(toy_recipe, tmp_path, change):
    run, key = tmp_path / "run", change.partition("=")[0]
    start(run, read_recipe(toy_recipe))
    (said,) = start(run, read_recipe(toy_recipe, [change]), resume=True)
    assert said.startswith(f"continuing with {key} = ")
    assert read_record(run)["starts"][-1]["changed"].keys() == {key}
    assert start(run, read_recipe(run / "recipe.toml"), resume=True) == []


@pytest.mark.parametrize(
    "change", ["training.learning_rate=0.02", "seed=9", "grpo.num_steps=2", "sampling.tau_init=2.0"]
)
def test_what_decides_the_result_may_not_change(toy_recipe, tmp_path, change):
    start(tmp_path / "run", read_recipe(toy_recipe))
    with pytest.raises(RecipeError, match=f"another recipe: {change.partition('=')[0]} is"):
        start(tmp_path / "run", read_recipe(toy_recipe, [change]), resume=True)


def test_every_free_setting_is_one_that_there_is(toy_recipe):
    sections = ["watch.rewards.x=clip", "ema.decay=0.9", "early_stop.reward=x", "early_stop.patience=2"]
    known = set(flat(read_recipe(toy_recipe, sections)))
    for key in FREE:
        assert any(name.startswith(key) for name in known), key


def test_more_updates_move_a_schedule_and_that_is_said(toy_recipe, tmp_path):
    start(tmp_path / "run", read_recipe(toy_recipe, ["training.lr_schedule=cosine"]))
    longer = read_recipe(toy_recipe, ["training.lr_schedule=cosine", "training.updates=9"])
    (said,) = start(tmp_path / "run", longer, resume=True)
    assert said.endswith("was 2; the learning rate's schedule follows")


def test_a_setting_that_came_with_a_release_takes_its_default(toy_recipe, tmp_path):
    run = tmp_path / "run"
    start(run, read_recipe(toy_recipe))
    saved = (run / "recipe.toml").read_text()
    older = "".join(
        line for line in saved.splitlines(True) if not line.startswith(("max_resamples", "warmup_updates"))
    )
    assert older != saved
    (run / "recipe.toml").write_text(older)
    with pytest.raises(TrainingError, match=r"recipe\.toml' is not what the run wrote there: restore it"):
        start(run, read_recipe(toy_recipe), resume=True)
    write_record(run, {**read_record(run), "recipe_sha256": [files.sha256_text(older)]})
    assert start(run, read_recipe(toy_recipe), resume=True) == []


@pytest.mark.parametrize("name", ["prompts", "reward"])
def test_contents_that_changed_are_refused_and_named(toy_recipe, tmp_path, name):
    start(tmp_path / "run", read_recipe(toy_recipe))
    changed = json.loads(json.dumps(CONTENTS).replace("ab" if name == "prompts" else "cd", "ef"))
    with pytest.raises(
        RecipeError, match=rf"the contents of {name} are not .*sha256 was 'ab' and is 'ef'|model.sha256"
    ):
        start(tmp_path / "run", read_recipe(toy_recipe), resume=True, contents=changed)


def test_a_component_may_move_if_its_contents_are_the_same(toy_recipe, tmp_path):
    start(tmp_path / "run", read_recipe(toy_recipe))
    toy = Path(__file__).with_name("toy_run.py")
    shutil.copy(toy, tmp_path / "moved.py")
    moved = read_recipe(toy_recipe, [f"reward.name={tmp_path / 'moved.py'}:Red"])
    assert start(tmp_path / "run", moved, resume=True) == []


def test_the_source_of_a_file_plugin_is_kept(toy_recipe, tmp_path):
    start(tmp_path / "run", read_recipe(toy_recipe))
    (copy,) = (tmp_path / "run" / "plugins").glob("*/toy_run.py")
    assert copy.read_bytes() == Path(__file__).with_name("toy_run.py").read_bytes()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"starts": 3}'])
def test_a_damaged_record_is_a_line_and_its_advice_works(toy_recipe, tmp_path, text):
    start(tmp_path / "run", read_recipe(toy_recipe))
    (tmp_path / "run" / RECORD).write_text(text)
    with pytest.raises(RecipeError, match=r"run\.json' is damaged .*; restore it, or delete it"):
        start(tmp_path / "run", read_recipe(toy_recipe), resume=True)
    (tmp_path / "run" / RECORD).unlink()
    (said,) = start(tmp_path / "run", read_recipe(toy_recipe), resume=True)
    assert "taken to be the same" in said


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(RecipeError, match="holds no run to resume"):
        check_folder(tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RecipeError, match="is not empty and holds no run"):
        check_folder(tmp_path, resume=False)


@pytest.mark.parametrize(
    "leftover", ["recipe.toml.unfinished", "recipe.toml.0123abcd.unfinished", "x.0123abcd.tmp"]
)
def test_what_a_kill_at_the_first_write_left_is_no_run_and_is_cleared(toy_recipe, tmp_path, leftover):
    run = tmp_path / "run"
    run.mkdir()
    (run / leftover).write_text("half")
    start(run, read_recipe(toy_recipe))
    assert not (run / leftover).exists()


def test_a_damaged_recipe_in_the_folder_is_named(toy_recipe, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text("seed =")
    with pytest.raises(RecipeError, match=r"recipe\.toml' cannot be read any more"):
        start(tmp_path / "run", read_recipe(toy_recipe), resume=True)


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=f"cannot write in '.*{place}'"), files.owned(tmp_path / place):
        pass


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew(tmp_path):
    check_saved(tmp_path, checkpoint_every=25, last_update=10)  # killed before there was one
    with pytest.raises(TrainingError, match="has made 30 updates, but no checkpoint can be found"):
        check_saved(tmp_path, checkpoint_every=25, last_update=30)
    note_saved(tmp_path, 10)
    with pytest.raises(TrainingError, match="has made 10 updates, but no checkpoint can be found"):
        check_saved(tmp_path, checkpoint_every=25, last_update=10)
    check_saved(tmp_path, checkpoint_every=25, last_update=0)  # its metrics were deleted, as the message says


@pytest.mark.parametrize("every", [5, 30])  # it may be lowered when a run is resumed
def test_a_run_that_was_killed_while_its_first_checkpoint_was_written_begins_anew(
    toy_recipe, tmp_path, every
):
    start(tmp_path / "run", read_recipe(toy_recipe))
    check_saved(tmp_path / "run", checkpoint_every=every, last_update=30)
    note_saved(tmp_path / "run", 30)
    with pytest.raises(TrainingError, match="has made 30 updates, but no checkpoint can be found"):
        check_saved(tmp_path / "run", checkpoint_every=every, last_update=30)


def test_the_default_folder_is_named_after_recipe_and_time():
    assert default_folder("clip", datetime(2026, 11, 20, 9, 5, 7)) == Path("runs/clip-20261120-090507")
