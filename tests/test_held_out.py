"""Held-out rewards: scored now and then, logged and shown, and never taught by."""

import json

import pytest
import torch
from rich.console import Console
from test_training import METRICS
from toy import ToyReward, toy_halves

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError, TrainingError
from maskrl.grpo.update import collect
from maskrl.recipe import read_recipe
from maskrl.training.display import Display
from maskrl.training.held_out import HeldOutRewards, mean_correlation
from maskrl.training.loop import train
from maskrl.types import Prompt

PROMPTS = [Prompt("dark"), Prompt("bright")]


class Opposite(ToyReward):
    def score(self, images, prompts):
        return 3 - super().score(images, prompts)


def watch(halves, **rewards):
    return HeldOutRewards(
        {name: kind(ComponentConfig()) for name, kind in rewards.items()}, 3, 2, halves.actor.process
    )


def test_only_every_third_update_is_looked_at():
    halves = toy_halves()
    looked = [
        watch(halves, gold=ToyReward).score_if_due(collect(halves.actor, PROMPTS, update))
        for update in range(6)
    ]
    assert [bool(metrics) for metrics in looked] == [False, False, True, False, False, True]


def test_mean_and_agreement_are_those_of_the_images_that_taught():
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 2)
    metrics = watch(halves, same=ToyReward, opposite=Opposite).score_if_due(batch)
    assert metrics["held_out_same"] == pytest.approx(float(batch.rewards.mean()))
    assert metrics["held_out_opposite"] == pytest.approx(3 - float(batch.rewards.mean()))
    assert metrics["held_out_same_agreement"] == pytest.approx(1)
    assert metrics["held_out_opposite_agreement"] == pytest.approx(-1)


def test_agreement_is_a_mean_over_the_groups_in_which_both_vary():
    first = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [1.0, 0.0, 2.0]])
    second = torch.tensor([[2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 9.0]])
    half = float(torch.corrcoef(torch.stack([first[3], second[3]]))[0, 1])
    assert mean_correlation(first, second) == pytest.approx((1 - 1 + half) / 3)
    assert mean_correlation(first[2:3], second[2:3]) is None


def test_a_held_out_reward_that_is_not_finite_is_named():
    class Nan(ToyReward):
        def score(self, images, prompts):
            return super().score(images, prompts) * torch.nan

    halves = toy_halves()
    with pytest.raises(TrainingError, match="update 2, held out: the reward 'gold' gave nan"):
        watch(halves, gold=Nan).score_if_due(collect(halves.actor, PROMPTS, 2))


def test_a_watched_run_learns_the_same_and_logs_more(toy_recipe):
    def rows(name, *changes):
        recipe = read_recipe(toy_recipe, ("training.updates=4", *changes))
        train(recipe, toy_recipe.parent / name, resume=False, display=False)
        lines = (toy_recipe.parent / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]

    red = read_recipe(toy_recipe).reward.name
    plain, watched = rows("plain"), rows("watched", f"watch.rewards.gold={red}", "watch.every=2")
    added = [{k: row.pop(k) for k in list(row) if k.startswith("held_out")} for row in watched]
    assert watched == plain
    assert [bool(row) for row in added] == [False, True, False, True]
    assert added[1]["held_out_gold"] == pytest.approx(plain[1]["reward_mean"])


def test_the_panel_keeps_the_latest_of_them(capsys):
    with Display(Console(force_terminal=True, width=100), updates=50) as display:
        display.update(1, {**METRICS, "held_out_gold": 12.5})
        display.update(2, METRICS)
        capsys.readouterr()
        display.stage("GenEval during", 3, 9)
    shown = capsys.readouterr().out
    assert "held out gold" in shown
    assert "12.5000" in shown
    assert "diversity in groups" in shown


def test_prompts_that_a_held_out_reward_cannot_judge_are_named_before_the_run(toy_recipe):
    recipe = read_recipe(
        toy_recipe, ("watch.rewards.gold.name=geneval", "watch.rewards.gold.detector=shapes")
    )
    with pytest.raises(RecipeError, match="GenEval cannot judge the prompt 'red tiles'"):
        train(recipe, toy_recipe.parent / "run", resume=False, display=False)
    assert not (toy_recipe.parent / "run").exists()


def test_mistakes_are_one_line(toy_recipe):
    for change, message in (
        ("watch.rewards.gold=clib", "watch.rewards.gold.*no reward is called 'clib'"),
        ("watch.every=0", "watch.every"),
    ):
        with pytest.raises(RecipeError, match=message) as caught:
            read_recipe(toy_recipe, (change,))
        assert "\n" not in str(caught.value)
