"""The small Show-o learns: the reward rises, and the detector, which never trains, is no part of the shipped recipe.

Under the teacher that forgives, as six updates show that; under the strict one it takes tens.
"""

import json

import pytest

from maskrl.recipe import read_recipe
from maskrl.training.loop import train


@pytest.mark.slow
def test_a_few_updates_raise_the_reward(tmp_path):
    overrides = [
        "training.updates=6",
        "eval=",
        "tracking.tensorboard=false",
        "tracking.samples_every=1000",
    ]
    train(
        read_recipe("benchmarks/studies/small.toml", overrides), tmp_path / "run", resume=False, display=False
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward_mean"] for row in rows if row["kind"] == "update"]
    assert len(rewards) == 6
    assert sum(rewards[-2:]) / 2 > rewards[0] + 10


def test_the_reward_of_the_shipped_recipe_is_not_its_judge():
    recipe = read_recipe("shapes_clip", [])
    assert recipe.reward.settings()["name"] == "clip"
    assert recipe.eval["geneval"].build({}).detector.label == "GenEval-shapes"
