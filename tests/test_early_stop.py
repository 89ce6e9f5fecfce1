"""The end of a run whose held-out reward no longer rises: the rule, the best checkpoint, a resumed run."""

import re
from pathlib import Path

import pytest
import torch
from conftest import TOY
from toy_run import ToyGenerator

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.recipes_at_hand import shipped_recipes
from maskrl.runtime.checkpoint import listed, load, save
from maskrl.runtime.metrics import is_wall_clock, last_update, read_rows
from maskrl.runtime.prompts import training_prompts
from maskrl.sections import EarlyStopConfig
from maskrl.training.early_stop import EarlyStop
from maskrl.training.loop import train

WATCHED = (f"watch.rewards.gold={TOY}:Red", "watch.every=2", "early_stop.reward=gold")


def run(recipe, folder, *changes, resume=False):
    train(read_recipe(recipe, [*WATCHED, *changes]), folder, resume, display=False)
    return [{key: value for key, value in row.items() if not is_wall_clock(key)} for row in read_rows(folder)]


def test_the_rule():
    stop = EarlyStop(EarlyStopConfig(reward="gold", patience=2, min_delta=0.5))
    measured = [1.0, 1.25, None, 2.0, 2.5, None, 2.25]
    best = []
    for update, value in enumerate(measured, start=1):
        assert not stop.is_over
        best.append(stop.note(update, {} if value is None else {"held_out_gold": value}))
    assert best == [True, False, False, True, False, False, False]  # 2.5 is no rise by more than 0.5
    assert stop.is_over
    again = EarlyStop(EarlyStopConfig(reward="gold", patience=3, min_delta=0.5))
    again.load_state_dict(stop.state_dict())
    assert (again.state_dict(), again.is_over) == ({"best": 2.0, "update": 4, "since": 2}, False)
    assert EarlyStop(EarlyStopConfig(reward="gold")).state_dict() == {}


def test_a_run_ends_and_keeps_its_best(toy_recipe, tmp_path, capsys):
    changes = [*WATCHED, "training.updates=50", "early_stop.patience=2", "early_stop.min_delta=9"]
    train(read_recipe(toy_recipe, changes), tmp_path / "run", resume=False, display=True)
    assert last_update(tmp_path / "run") == 6  # the best is the first, of update 2; 4 and 6 are no rise by 9
    best = tmp_path / "run" / "best" / "update_00002"
    gold = next(row["held_out_gold"] for row in read_rows(tmp_path / "run") if "held_out_gold" in row)
    said = " ".join(capsys.readouterr().out.split())
    assert "stopped early: 2 measurements without a rise" in said
    assert f"the best held_out_gold, {gold:.4f}, was that of update 2, which is kept in {best}" in said
    run(toy_recipe, tmp_path / "two", "training.updates=2")
    saved, straight = (load(folder) for folder in (best, listed(tmp_path / "two" / "checkpoints")[-1]))
    for name, tensor in straight.tensors.items():
        assert torch.equal(saved.tensors[name], tensor)


def test_the_best_replaces_the_one_before_and_can_be_painted(cli, toy_recipe, tmp_path):
    rows = run(
        toy_recipe,
        tmp_path / "run",
        "training.updates=12",
        "early_stop.patience=99",
        "training.learning_rate=0.03",
    )
    scores = {row["update"]: row["held_out_gold"] for row in rows if "held_out_gold" in row}
    (best,) = listed(tmp_path / "run" / "best")
    assert best.name == f"update_{max(scores, key=scores.get):05d}"
    assert len([v for u, v in scores.items() if v > max([0.0, *(w for x, w in scores.items() if x < u)])]) > 1
    painted = cli(
        "sample", "red tiles", "--run", tmp_path / "run", "--checkpoint", best, "--out", tmp_path / "x.png"
    )
    assert painted.code == 0, painted.err


def test_a_killed_run_stops_where_a_whole_one_does(toy_recipe, tmp_path, monkeypatch):
    changes = ("training.updates=50", "early_stop.min_delta=9", "reward.after=5", "reward.then=SIGTERM")
    monkeypatch.setenv("TOY_HARMLESS", "1")
    whole = run(toy_recipe, tmp_path / "whole", *changes)
    assert whole[-1]["update"] == 8
    monkeypatch.delenv("TOY_HARMLESS")
    with pytest.raises(SystemExit):
        run(toy_recipe, tmp_path / "killed", *changes)
    monkeypatch.setenv("TOY_HARMLESS", "1")
    assert run(toy_recipe, tmp_path / "killed", *changes, resume=True) == whole
    assert run(toy_recipe, tmp_path / "killed", *changes, resume=True) == whole  # it is over
    more = run(toy_recipe, tmp_path / "killed", *changes, "early_stop.patience=4", resume=True)
    assert (more[-1]["update"], more[: len(whole)]) == (10, whole)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["early_stop.reward=gold"], "there are none: watch.rewards.NAME = REWARD adds one"),
        ([*WATCHED, "early_stop.reward=gild"], "did you mean 'gold'?"),
        (["early_stop.patience=2"], "early_stop.reward: is missing"),
        ([*WATCHED, "early_stop.patience=0"], "early_stop.patience: "),
        ([*WATCHED, "early_stop.min_delta=-1"], "early_stop.min_delta: "),
    ],
)
def test_a_mistake_is_one_line(toy_recipe, changes, said):
    with pytest.raises(RecipeError) as caught:
        read_recipe(toy_recipe, changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_sections_of_the_quickstart_are_some(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "quickstart.md").read_text(encoding="utf-8")
    sections = re.findall(r"```toml\n(\[(?:watch|ema)\]\n.+?)```", page, re.DOTALL)
    (tmp_path / "mine.toml").write_text("\n".join([shipped_recipes()["shapes_clip"].read_text(), *sections]))
    recipe = read_recipe(tmp_path / "mine.toml")
    assert (recipe.ema.decay, recipe.early_stop.patience, recipe.watch.every) == (0.9, 3, 5)
    recipe.watch.rewards["gold"].build().check(training_prompts(recipe.prompts))


def test_a_reward_that_is_never_measured_is_said(toy_recipe, tmp_path, capsys):
    changes = [*WATCHED, "watch.every=10"]
    train(read_recipe(toy_recipe, changes), tmp_path / "run", resume=False, display=True)
    assert "held_out_gold was never measured: set watch.every to fewer" in " ".join(
        capsys.readouterr().out.split()
    )
    train(read_recipe(toy_recipe, [*changes, "watch.every=1"]), tmp_path / "more", resume=False, display=True)
    assert "the best held_out_gold" in capsys.readouterr().out


def test_the_best_of_another_course_goes_when_a_new_one_is_there(tmp_path):
    generator, tensors = ToyGenerator(ToyGenerator.Config()), {"parameter/x": torch.zeros(1)}
    for update in (60, 50):  # resumed from before 60, with more patience or another rate
        save(tmp_path, update, generator, tensors, {}, keep=1)
    assert [path.name for path in listed(tmp_path)] == ["update_00050"]
