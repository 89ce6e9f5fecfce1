"""The embedded world: what is painted is found again, and what judges is never trained on."""

import numpy as np
import pytest
import torch

from maskrl.component import ComponentConfig
from maskrl.errors import TrainingError
from maskrl.geneval.metadata import RELATIONS, TASKS
from maskrl.geneval.scoring import judge, select
from maskrl.shapes.captions import Caption, Clause
from maskrl.shapes.detector import ShapesDetector
from maskrl.shapes.faults import (
    NEVER_WRONG,
    OFTEN_BROKEN,
    OFTEN_RIGHT,
    OFTEN_WRONG,
    break_things,
    misread,
    near_miss,
    random_caption,
)
from maskrl.shapes.prompts import ShapesGenEval, ShapesTrain, captions, colored_shapes, shape_pairs
from maskrl.shapes.world import (
    COLORS,
    EVERY_OTHER_LINE,
    GRID,
    IMAGE_SIZE,
    LINES,
    SHAPES,
    Thing,
    lay_out,
    paint,
    relation_between,
)

DETECTOR = ShapesDetector(ComponentConfig())
TRAIN = ShapesTrain(ComponentConfig()).prompts()
EVALUATION = ShapesGenEval(ComponentConfig()).prompts()


def image(scene):
    return torch.from_numpy(paint(scene).copy()).permute(2, 0, 1).float() / 255


def verdict(scene, metadata):
    picture = image(scene)
    return judge(picture, select(DETECTOR.detect(picture), metadata["tag"]), metadata, DETECTOR.color)[0]


@pytest.mark.parametrize("seed", range(60))
def test_the_detector_finds_exactly_what_was_painted(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 5))
    scene = lay_out([(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))) for _ in range(count)], rng)
    picture = image(scene)
    found = [
        (shape, DETECTOR.color(picture, detection, shape))
        for shape, detections in select(DETECTOR.detect(picture), "counting").items()
        for detection in detections
    ]
    assert sorted(found) == sorted((thing.shape, thing.color) for thing in scene)


def test_the_detector_passes_its_self_test():
    DETECTOR.self_test()
    assert DETECTOR.label == "GenEval-shapes"


@pytest.mark.parametrize(
    "changes",
    [
        {"detect": lambda self, image: {}},
        {"detect": lambda self, image: ShapesDetector.detect(self, image.flip(1))},
        {"color": lambda self, image, detection, class_name: "red"},
        {"color": lambda self, image, found, name: ShapesDetector.color(self, image.flip(0), found, name)},
    ],
)
def test_a_broken_detector_fails_it(changes):
    with pytest.raises(TrainingError, match="fails its self-test"):
        type("Broken", (ShapesDetector,), changes)(ComponentConfig()).self_test()


def test_boxes_are_where_the_things_are():
    thing = Thing("circle", "red", 20.0, 30.0, 8.0)
    (found,) = DETECTOR.detect(image([thing]))["circle"]
    assert np.abs(np.subtract(found.box, thing.box)).max() <= 1.0


def test_objects_that_touch_or_are_no_shape_do_not_count():
    touching = [Thing("square", "red", 18.0, 24.0, 8.0), Thing("square", "blue", 30.0, 24.0, 8.0)]
    assert select(DETECTOR.detect(image(touching)), "two_object") == {}
    noise = torch.rand(3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    assert select(DETECTOR.detect(noise), "counting") == {}
    assert DETECTOR.detect(torch.ones(3, IMAGE_SIZE, IMAGE_SIZE)) == {}


@pytest.mark.parametrize("seed", range(80))
def test_the_detector_judges_as_the_caption_is_true(seed):
    rng = np.random.default_rng(seed)
    caption = random_caption(rng)
    scene = (misread(caption, rng) if seed % 2 else near_miss(caption, rng)).scene(rng, list(COLORS))
    assert verdict(scene, caption.metadata()) == caption.holds(scene)


def test_broken_things_have_their_halves_exchanged_and_nothing_else_changes():
    rng = np.random.default_rng(0)
    before = torch.arange(36).view(6, 6)
    broken = []
    for _ in range(300):
        scene = lay_out([("square", "blue"), ("ring", "red")], rng)
        after, expected = break_things(before, scene, rng, OFTEN_BROKEN.broken), before.clone()
        for thing in scene:
            left, top = int(thing.x) // GRID - 1, int(thing.y) // GRID - 1
            broken.append(bool((after[top, left] != before[top, left]).item()))
            if broken[-1]:
                for row in (top, top + 1):
                    expected[row, left], expected[row, left + 1] = before[row, left + 1], before[row, left]
        assert torch.equal(after, expected)
    assert np.mean(broken) == pytest.approx(OFTEN_BROKEN.broken, abs=0.06)
    assert torch.equal(break_things(before, scene, rng, 0.0), before)
    assert torch.equal(before, torch.arange(36).view(6, 6)), "what was given stays as it was"


@pytest.mark.parametrize("lines", [LINES, EVERY_OTHER_LINE])
def test_things_stand_on_the_lines_they_may(lines):
    rng = np.random.default_rng(0)
    caption = Caption("position", (Clause("circle"), Clause("star")), "above")
    scenes = [caption.scene(rng, list(COLORS), lines) for _ in range(200)]
    assert all(caption.holds(scene) for scene in scenes)
    seen = {place / GRID for scene in scenes for thing in scene for place in (thing.x, thing.y)}
    assert seen == set(lines)


@pytest.mark.parametrize("rates", [NEVER_WRONG, OFTEN_RIGHT, OFTEN_WRONG, OFTEN_BROKEN])
def test_captions_are_misread_as_often_as_the_rates_say(rates):
    rng = np.random.default_rng(0)
    two = Caption("color_attr", (Clause("circle", "red"), Clause("star", "blue")))
    read = [misread(two, rng, rates) for _ in range(4000)]
    whole = [caption for caption in read if len(caption.clauses) == 2]
    shapes = np.mean([caption.clauses[0].shape == "ring" for caption in whole])
    reddish = [[clause.color in ("red", "pink") for clause in caption.clauses] for caption in whole]
    mistaken = np.mean([any(c.color == "pink" for c in caption.clauses) for caption in whole])
    found = [1 - len(whole) / 4000, shapes, mistaken, np.mean([second for _, second in reddish])]
    assert np.abs(np.array(found) - [rates.missing, rates.shape, rates.color, rates.swap]).max() < 0.03


@pytest.mark.parametrize("seed", range(30))
def test_a_captions_own_scene_is_true(seed):
    rng = np.random.default_rng(seed)
    caption = random_caption(rng)
    scene = caption.scene(rng, list(COLORS))
    assert caption.holds(scene)
    assert verdict(scene, caption.metadata())


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_relation_holds_alone(relation):
    scene = lay_out([("circle", "red"), ("star", "blue")], np.random.default_rng(0), relation)
    assert relation_between(*scene) == {relation}


def test_evaluation_has_forty_prompts_a_task_and_none_twice():
    tags = [prompt.metadata["tag"] for prompt in EVALUATION]
    assert {task: tags.count(task) for task in TASKS} == dict.fromkeys(TASKS, 40)
    assert len({prompt.text for prompt in EVALUATION}) == 240


def combinations(prompt):
    """The combinations of a prompt: its (colour, shape) pairs, its pair of shapes, its lone colourless shape."""
    clauses = prompt.metadata["include"]
    shapes = tuple(sorted(clause["class"] for clause in clauses))
    found = {(clause["color"], clause["class"]) for clause in clauses if "color" in clause}
    if len(shapes) == 2:
        found.add(shapes)
    if len(shapes) == 1 and "color" not in clauses[0]:
        found.add((None, clauses[0]["count"], shapes[0]))
    return found


def test_training_and_evaluation_share_no_combination_and_no_wording():
    seen = set().union(*(combinations(prompt) for prompt in TRAIN))
    judged = set().union(*(combinations(prompt) for prompt in EVALUATION))
    assert seen
    assert judged
    assert not seen & judged
    assert not {prompt.text for prompt in TRAIN} & {prompt.text for prompt in EVALUATION}
    assert all(prompt.text.startswith("a photo of") for prompt in EVALUATION)
    assert not any("photo" in prompt.text for prompt in TRAIN)


def test_the_split_covers_the_world():
    assert len(shape_pairs(True)) + len(shape_pairs(False)) == len(SHAPES) * (len(SHAPES) - 1)
    assert len(colored_shapes(True)) + len(colored_shapes(False)) == len(SHAPES) * len(COLORS)
    assert captions("single_object", training=True) == []


def test_captions_speak_as_geneval_does():
    caption = Caption("position", (Clause("circle"), Clause("star")), "left of")
    assert caption.text("a photo of") == "a photo of a circle left of a star"
    assert caption.metadata() == {
        "tag": "position",
        "include": [
            {"class": "star", "count": 1},
            {"class": "circle", "count": 1, "position": ["left of", 0]},
        ],
    }
    three = Caption("counting", (Clause("cross", "orange", 3),))
    assert three.text("a photo of") == "a photo of three orange crosses"
    assert three.metadata()["exclude"] == [{"class": "cross", "count": 4}]
    assert Caption("colors", (Clause("star", "orange"),)).text("") == "an orange star"
