"""GenEval's metadata: what the check understood is what the rules use."""

import pytest
import torch
from test_evals import PROMPTS, Tiles

from maskrl.errors import RecipeError
from maskrl.evaluations.geneval import judge_image
from maskrl.geneval.metadata import asked_number, check_prompts, read_metadata
from maskrl.rewards.geneval import GenEval
from maskrl.shapes.prompts import ShapesGenEval
from maskrl.types import Prompt


def as_floats(clause):
    changed = {**clause, "count": float(clause["count"])}
    if "position" in clause:
        relation, target = clause["position"]
        changed["position"] = [relation, float(target)]
    return changed


def through_a_table(prompt):
    """The prompt as it comes back from a table in which a missing value makes all numbers floats."""
    include = [as_floats(clause) for clause in prompt.metadata["include"]]
    return Prompt(prompt.text, {**prompt.metadata, "include": include})


def test_whole_floats_are_judged_like_whole_numbers():
    detector = Tiles(Tiles.Config())
    images = torch.rand(len(PROMPTS), 3, 8, 12, generator=torch.Generator().manual_seed(0))
    check_prompts([through_a_table(prompt) for prompt in PROMPTS], detector)
    for image, prompt in zip(images, PROMPTS, strict=True):
        plain, floats = (judge_image(image, p, detector, "x") for p in (prompt, through_a_table(prompt)))
        assert (floats.correct, floats.reason) == (plain.correct, plain.reason)
        assert read_metadata(through_a_table(prompt)) == read_metadata(prompt)
        assert asked_number(through_a_table(prompt)) == asked_number(prompt)


@pytest.mark.parametrize(
    ("clause", "where"),
    [
        ({"class": "poppy", "count": "2"}, "include.0.count: Value error, is no whole number"),
        ({"class": "poppy", "count": 2.5}, "include.0.count: Value error, is no whole number"),
        ({"class": "poppy", "count": True}, "include.0.count: Value error, is no whole number"),
        ({"class": "poppy", "count": None}, "include.0.count"),
        (
            {"class": "poppy", "count": 1, "position": ["left of", "0"]},
            "include.0.position.1: Value error, is no",
        ),
    ],
)
def test_what_is_no_number_is_refused_before_anything_is_painted(clause, where):
    prompt = Prompt("two poppies", {"tag": "counting", "include": [clause]})
    with pytest.raises(RecipeError, match=f"GenEval cannot judge the prompt 'two poppies': {where}"):
        check_prompts([prompt], Tiles(Tiles.Config()))


@pytest.mark.parametrize("mode", ["official", "partial", "strict", "flow_grpo"])
def test_the_reward_takes_what_the_check_understood(mode):
    prompts = ShapesGenEval(ShapesGenEval.Config()).prompts()[::40]
    images = torch.ones(len(prompts), 3, 48, 48)
    judge = GenEval(GenEval.Config(detector="shapes", mode=mode))
    plain = judge.score(images, prompts)
    assert torch.equal(judge.score(images, [through_a_table(prompt) for prompt in prompts]), plain)
