"""GenEval as a reward, on painted scenes that the detector of the shapes world finds exactly."""

import numpy as np
import pytest
import torch

from maskrl.errors import RecipeError, TrainingError
from maskrl.evaluations.geneval import judge_image
from maskrl.recipe import read_recipe
from maskrl.rewards.geneval import GenEval
from maskrl.shapes.captions import Caption, Clause
from maskrl.shapes.faults import near_miss, random_caption
from maskrl.shapes.world import COLORS, Thing, paint
from maskrl.testing import check_reward
from maskrl.types import Prompt

MODES = ("official", "strict", "partial", "flow_grpo")
REWARDS = {mode: GenEval(GenEval.Config(detector="shapes", mode=mode)) for mode in MODES}
PLACES = [(12.0, 12.0), (36.0, 12.0), (12.0, 36.0), (36.0, 36.0)]

CIRCLE = Prompt("a circle", {"tag": "single_object", "include": [{"class": "circle", "count": 1}]})
TWO_RED_SQUARES = Prompt(
    "two red squares", {"tag": "counting", "include": [{"class": "square", "count": 2, "color": "red"}]}
)
CIRCLE_LEFT_OF_STAR = Prompt(
    "a circle left of a star",
    Caption("position", (Clause("circle"), Clause("star")), "left of").metadata(),
)


def image(*kinds):
    """Paint (shape, colour) at the four places, in order; None leaves a place empty."""
    scene = [Thing(*kind, *place, 7.0) for kind, place in zip(kinds, PLACES, strict=False) if kind]
    return torch.from_numpy(paint(scene).copy()).permute(2, 0, 1).float() / 255


def score(mode, prompt, *images):
    return REWARDS[mode].score(torch.stack(images), [prompt] * len(images)).tolist()


RED_SQUARE, BLUE_SQUARE = ("square", "red"), ("square", "blue")
RED_CIRCLE, STAR = ("circle", "red"), ("star", "green")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("official", [0, 1, 1, 1]),
        ("strict", [0, 1, 0, 0]),
        ("partial", [0, 1, 0, 0]),
        ("flow_grpo", [0, 1, 0, -1]),
    ],
)
def test_only_the_official_rule_forgives_more_than_was_asked(mode, expected):
    images = [image(STAR), *(image(*[RED_CIRCLE] * number) for number in (1, 2, 3))]
    assert score(mode, CIRCLE, *images) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("official", [1, 0, 0, 0]),
        ("strict", [1, 0, 0, 0]),
        ("partial", [1, 0.75, 0.25, 0]),
        ("flow_grpo", [1, 0.75, 0.25, 0]),
    ],
)
def test_number_and_color(mode, expected):
    images = [
        image(RED_SQUARE, None, RED_SQUARE),
        image(RED_SQUARE, BLUE_SQUARE),
        image(RED_SQUARE),
        image(RED_CIRCLE),
    ]
    assert score(mode, TWO_RED_SQUARES, *images) == expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("official", [1, 0, 0]),
        ("strict", [1, 0, 0]),
        ("partial", [1, 2 / 3, 1 / 3]),
        ("flow_grpo", [1, 0.75, 1 / 3]),
    ],
)
def test_a_relation(mode, expected):
    images = [image(RED_CIRCLE, STAR), image(STAR, RED_CIRCLE), image(RED_CIRCLE)]
    assert score(mode, CIRCLE_LEFT_OF_STAR, *images) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_a_true_picture_earns_one_and_a_near_miss_less(seed):
    rng = np.random.default_rng(seed)
    caption = random_caption(rng)
    prompt = Prompt(caption.text("a photo of"), caption.metadata())
    true = caption.scene(rng, list(COLORS))
    missed = near_miss(caption, rng).scene(rng, list(COLORS))
    pictures = [
        torch.from_numpy(paint(scene).copy()).permute(2, 0, 1).float() / 255 for scene in (true, missed)
    ]
    assert score("official", prompt, *pictures) == [1, float(caption.holds(missed))]
    for mode in ("strict", "partial", "flow_grpo"):
        hit, miss = score(mode, prompt, *pictures)
        assert hit == 1
        assert miss < 1


def test_images_are_judged_as_eight_bits_hold_them(tmp_path):
    (tmp_path / "strict.py").write_text(
        "import torch\n"
        "from maskrl.shapes.detector import ShapesDetector\n"
        "class EightBits(ShapesDetector):\n"
        "    def detect(self, image):\n"
        "        exact = torch.equal(torch.round(image * 255) / 255, image)\n"
        "        return super().detect(image) if exact else {}\n"
    )
    reward = GenEval(GenEval.Config(detector=f"{tmp_path}/strict.py:EightBits"))
    noise = torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    jittered = (image(RED_SQUARE, RED_SQUARE) + 0.9 * noise / 255).clamp(0, 1)
    assert reward.score(jittered[None], [TWO_RED_SQUARES]).tolist() == [1]


@pytest.mark.parametrize("mode", MODES)
def test_contract(mode):
    shown = torch.stack([image(RED_SQUARE, RED_SQUARE), image(RED_SQUARE)])
    check_reward(REWARDS[mode], [CIRCLE, TWO_RED_SQUARES], images=shown)


def test_the_detectors_networks_are_placed_with_the_reward(tmp_path):
    (tmp_path / "netted.py").write_text(
        "from torch import nn\n"
        "from maskrl.shapes.detector import ShapesDetector\n"
        "class Netted(ShapesDetector):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        self.modules = (nn.Linear(1, 1),)\n"
    )
    reward = GenEval(GenEval.Config(detector=f"{tmp_path}/netted.py:Netted"))
    assert [type(module).__name__ for module in reward.modules] == ["Linear"]
    assert REWARDS["official"].modules == ()


def test_a_broken_detector_gives_no_reward(tmp_path):
    (tmp_path / "broken.py").write_text(
        "from maskrl.errors import TrainingError\n"
        "from maskrl.shapes.detector import ShapesDetector\n"
        "class Broken(ShapesDetector):\n"
        "    def self_test(self):\n"
        "        raise TrainingError('it sees nothing')\n"
    )
    reward = GenEval(GenEval.Config(detector=f"{tmp_path}/broken.py:Broken"))
    for _ in range(2):
        with pytest.raises(TrainingError, match="it sees nothing"):
            reward.score(image(RED_CIRCLE)[None], [CIRCLE])


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        (Prompt("a cat"), "tag"),
        (Prompt("a cat", {"tag": "colors", "include": [{"class": "cat", "count": 1}]}), "the class 'cat'"),
        (Prompt("a cat", {"tag": "colors"}), "include"),
    ],
)
def test_a_prompt_that_cannot_be_judged_is_named_in_one_line(prompt, fault):
    with pytest.raises(RecipeError, match=fault) as error:
        REWARDS["partial"].score(torch.ones(2, 3, 48, 48), [CIRCLE, prompt])
    assert "'a cat'" in str(error.value)
    assert "\n" not in str(error.value)


def as_a_table_has_it(prompt):
    include = [{**clause, "count": float(clause["count"])} for clause in prompt.metadata["include"]]
    for clause in include:
        if "position" in clause:
            clause["position"] = [clause["position"][0], float(clause["position"][1])]
    return Prompt(prompt.text, {**prompt.metadata, "include": include})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prompt", [CIRCLE, TWO_RED_SQUARES, CIRCLE_LEFT_OF_STAR])
def test_numbers_with_a_point_are_judged_as_without(mode, prompt):
    images = [image(RED_CIRCLE, STAR), image(STAR, RED_CIRCLE), image(RED_SQUARE, RED_SQUARE)]
    table = as_a_table_has_it(prompt)
    assert score(mode, table, *images) == score(mode, prompt, *images)
    detector = REWARDS[mode].config.detector.build()
    verdicts = [
        [judge_image(shown, asked, detector, "0.png").correct for shown in images]
        for asked in (table, prompt)
    ]
    assert verdicts[0] == verdicts[1]
    assert any(verdicts[0])


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("", r"reward\.detector: is missing$"),
        ('detector = "shape"', r"reward\.detector: no detector is called 'shape'; did you mean 'shapes'\?"),
        ('detector = {name = "shapes", size = 3}', r"reward\.detector\.size: unknown key"),
        ('detector = "shapes"\nmode = "lenient"', r"reward\.mode: input should be"),
    ],
)
def test_a_recipe_says_which_detector_and_mode(toy_recipe, section, complaint):
    old = toy_recipe.read_text()
    start, end = old.index("[reward]"), old.index("[filter]")
    toy_recipe.write_text(f'{old[:start]}[reward]\nname = "geneval"\n{section}\n{old[end:]}')
    with pytest.raises(RecipeError, match=complaint) as error:
        read_recipe(toy_recipe)
    assert "\n" not in str(error.value)


def test_a_recipe_with_this_reward_is_written_out_whole(toy_recipe, tmp_path):
    settings = ["reward.name=geneval", "reward.detector=shapes", "reward.mode=strict"]
    recipe = read_recipe(toy_recipe, settings)
    saved = tmp_path / "saved.toml"
    saved.write_text(recipe.to_toml())
    assert read_recipe(saved) == recipe
    assert recipe.reward.build().score(image(RED_CIRCLE)[None], [CIRCLE]).tolist() == [1]
