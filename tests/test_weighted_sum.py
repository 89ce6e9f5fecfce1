"""A mix of rewards: its arithmetic, its terms in the metrics, and what is wrong with one."""

import json
from pathlib import Path

import pytest
import torch

from maskrl.component import build
from maskrl.errors import RecipeError, TrainingError
from maskrl.recipe import read_recipe
from maskrl.rewards.clip import Clip
from maskrl.rewards.weighted_sum import WeightedSum
from maskrl.testing import check_reward
from maskrl.training.loop import train
from maskrl.types import Prompt

SHIPPED = {"name": "clip", "model": "package:maskrl/shapes/weights/clip"}
RED = {"name": f"{Path(__file__).with_name('toy_run.py')}:Red"}
PROMPTS = [Prompt("a red circle"), Prompt("two blue squares"), Prompt("a star")]


@pytest.fixture
def images():
    return torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def mix(base, **terms):
    return build("rewards", {"name": "weighted_sum", "terms": terms}, base)


@pytest.fixture
def folder(toy_recipe):
    return toy_recipe.parent


def test_a_mix_adds_what_is_left_of_each_term(folder, images):
    total, terms = mix(
        folder,
        fit={"reward": SHIPPED, "weight": 0.5, "mean": 3.0, "std": 10.0},
        red={"reward": RED, "weight": -2},
    ).score_terms(images, PROMPTS)
    fit = build("rewards", SHIPPED, folder).score(images, PROMPTS)
    redness = build("rewards", RED, folder).score(images, PROMPTS)
    assert {name: values.tolist() for name, values in terms.items()} == {
        "fit": fit.tolist(),
        "red": redness.tolist(),
    }
    torch.testing.assert_close(total, 0.5 * (fit - 3) / 10 - 2 * redness)
    assert total.std() > 0


def test_terms_count_by_their_weights_alone(folder):
    fit = {"reward": SHIPPED, "weight": 0.5, "mean": 3.0, "std": 10.0}
    assert mix(folder, fit=fit, red={"reward": RED, "weight": -2}).term_weights() == {"fit": 0.5, "red": -2}


def test_a_mix_keeps_to_the_contract_of_rewards(folder):
    two = mix(folder, a={"reward": SHIPPED}, b={"reward": SHIPPED, "weight": 0.1})
    check_reward(two, image_size=(48, 48))
    assert len(two.modules) == 2


def test_costs_add_up(folder):
    config = mix(folder, a={"reward": SHIPPED}, b={"reward": SHIPPED}).config
    one = Clip.cost(Clip.Config(model=SHIPPED["model"]))
    assert WeightedSum.cost(config) == tuple(2 * value for value in one)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({}, "terms: "),
        ({"a": {"weight": 1}}, r"terms\.a\.reward: is missing"),
        ({"a": {"reward": "clib"}}, "no reward is called 'clib'; did you mean 'clip'"),
        ({"a": {"reward": SHIPPED, "std": 0}}, r"terms\.a\.std: "),
        ({"a": {"reward": SHIPPED, "weight": float("nan")}}, r"terms\.a\.weight: "),
        ({"a": {"reward": {**SHIPPED, "colour": 1}}}, r"terms\.a\.reward\.colour: unknown key"),
        ({"a b": {"reward": SHIPPED}}, r'terms\."a b": string should match'),
    ],
)
def test_mistakes_are_one_line(folder, terms, message):
    with pytest.raises(RecipeError, match=message) as caught:
        mix(folder, **terms)
    assert "\n" not in str(caught.value)


def recipe(folder, *changes):
    text = (folder / "toy.toml").read_text()
    before, after = text[: text.index("[reward]")], text[text.index("[filter]") :]
    terms = f"""
[reward]
name = "weighted_sum"
[reward.terms.red]
reward = "{RED["name"]}"
std = 2.0
[reward.terms.other]
reward = {{ name = "{RED["name"]}", after = 100 }}
weight = 0.5
"""
    (folder / "mix.toml").write_text(before + terms + after)
    return read_recipe(folder / "mix.toml", changes)


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_term_is_logged_and_the_recipe_survives_being_shown(folder):
    mixed = recipe(folder)
    train(mixed, folder / "run", resume=False, display=False)
    for row in rows(folder / "run"):
        assert row["reward_red_mean"] == pytest.approx(row["reward_other_mean"])
        assert row["reward_mean"] == pytest.approx(row["reward_red_mean"] * (1 / 2 + 0.5))
        assert row["reward_red_std"] > 0
    (folder / "again.toml").write_text(mixed.to_toml())
    assert read_recipe(folder / "again.toml").digest() == mixed.digest()


def test_a_term_that_is_nan_is_named(folder):
    with pytest.raises(TrainingError, match="update 0: the reward 'other' gave nan for an image of"):
        train(
            recipe(folder, "reward.terms.other.reward.after=1"), folder / "run", resume=False, display=False
        )
