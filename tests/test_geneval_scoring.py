"""GenEval's rules against vectors obtained from the official functions, and by enumeration."""

import json
import math
from dataclasses import asdict
from itertools import product

import built
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.errors import RecipeError, TrainingError
from maskrl.evaluations.numbers import numbers
from maskrl.geneval.metadata import RELATIONS, TASKS, check_prompts, metadata_line
from maskrl.geneval.record import Record, check_tasks, details
from maskrl.geneval.scoring import iou, judge, relative_position, select
from maskrl.interfaces import Detection, Detector
from maskrl.types import Prompt

GENEVAL = built.geneval()
IMAGE = torch.zeros(3, 8, 8)
MASK = np.zeros((8, 8), dtype=np.bool_)
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

coordinates = st.integers(0, 400)
boxes = st.tuples(coordinates, coordinates, st.integers(1, 200), st.integers(1, 200)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def found(score, box=(0, 0, 10, 10)):
    return Detection(box, score, MASK)


def unexpected_color(image, detection, class_name):
    raise AssertionError("no colour was asked for")


def color_by_score(names):
    """The colour of a detection is looked up by its score."""
    return lambda image, detection, class_name: names[detection.score]


@pytest.mark.parametrize(
    ("subject", "reference", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), set()),
        ((0, 0, 100, 100), (100, 0, 200, 100), {"left of"}),
        ((0, 0, 100, 100), (0, 100, 100, 200), {"above"}),
        ((0, 0, 100, 100), (100, 100, 200, 200), {"above", "left of"}),
        ((0, 0, 100, 100), (60, 60, 160, 160), set()),
        ((0, 0, 100, 100), (40, 0, 140, 100), set()),
        ((0, 0, 100, 100), (41, 0, 141, 100), {"left of"}),
        ((0, 0, 100, 100), (20, 0, 120, 100), set()),
        ((0, 0, 100, 100), (200, 100, 300, 200), {"left of"}),
        ((300, 300, 350, 350), (0, 0, 50, 50), {"below", "right of"}),
    ],
)
def test_position_matches_the_official_vectors(subject, reference, expected):
    assert relative_position(subject, reference) == expected


@given(boxes, boxes)
def test_swapping_subject_and_reference_mirrors_the_relation(a, b):
    assert relative_position(b, a) == {OPPOSITE[relation] for relation in relative_position(a, b)}


@given(boxes, boxes)
def test_transposing_the_image_transposes_the_relation(a, b):
    transposed = {"left of": "above", "right of": "below", "above": "left of", "below": "right of"}
    flipped = relative_position((a[1], a[0], a[3], a[2]), (b[1], b[0], b[3], b[2]))
    assert flipped == {transposed[relation] for relation in relative_position(a, b)}


def test_iou_counts_the_last_pixel():
    assert iou((0, 0, 9, 9), (5, 5, 14, 14)) == 25 / 175
    assert iou((0, 0, 9, 9), (10, 0, 19, 9)) == 0
    assert iou((3, 3, 3, 3), (3, 3, 3, 3)) == 1
    assert iou((0, 0, -1, -1), (0, 0, -1, -1)) == 0


def test_selection_is_strict_sorted_and_stricter_for_counting():
    candidates = {"dog": [found(0.3), found(0.31), found(0.95), found(0.9)], "cat": [found(0.3)]}
    assert [d.score for d in select(candidates, "colors")["dog"]] == [0.95, 0.9, 0.31]
    assert [d.score for d in select(candidates, "counting")["dog"]] == [0.95]
    assert "cat" not in select(candidates, "colors")


@pytest.mark.parametrize(("tag", "threshold"), [("colors", 0.3), ("counting", 0.9)])
def test_scores_are_compared_in_single_precision(tag, threshold):
    here = np.float32(threshold)
    scores = [np.nextafter(here, np.float32(side)) for side in (0, 1)] + [here, threshold]
    kept = select({"dog": [found(float(score)) for score in scores]}, tag)
    assert [d.score for d in kept["dog"]] == [float(scores[1])]


def test_selection_keeps_sixteen_and_duplicates():
    candidates = {"dog": [found(0.5 + i / 100) for i in range(20)]}
    kept = select(candidates, "two_object")["dog"]
    assert [d.score for d in kept] == [0.5 + i / 100 for i in reversed(range(4, 20))]


def test_ties_put_the_last_first():
    first, second = found(0.5, (0, 0, 1, 1)), found(0.5, (5, 5, 6, 6))
    assert select({"dog": [first, second]}, "colors")["dog"] == [second, first]


def test_overlap_drops_the_less_confident_only_where_asked():
    best, overlapping, apart = found(0.9), found(0.8, (1, 0, 11, 10)), found(0.7, (50, 50, 60, 60))
    candidates = {"dog": [apart, overlapping, best]}
    assert select(candidates, "colors", max_overlap=0.5)["dog"] == [best, apart]
    assert select(candidates, "colors")["dog"] == [best, overlapping, apart]
    assert select({"dog": [best, best]}, "colors")["dog"] == [best, best]


@pytest.mark.parametrize(("wanted", "number"), list(product((2, 3, 4), range(18))))
def test_counting_wants_exactly_n(wanted, number):
    metadata = {
        "include": [{"class": "dog", "count": wanted}],
        "exclude": [{"class": "dog", "count": wanted + 1}],
    }
    objects = {"dog": [found(0.95)] * number}
    correct, reason = judge(IMAGE, objects, metadata, unexpected_color)
    assert correct == (number == wanted)
    few, many = f"expected dog>={wanted}, found {number}", f"expected dog<{wanted + 1}, found {number}"
    assert reason == ("" if correct else few if number < wanted else many)


@pytest.mark.parametrize(("dogs", "cats"), list(product(range(3), range(3))))
def test_two_objects_want_one_of_each_at_least(dogs, cats):
    metadata = {"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}]}
    objects = {"dog": [found(0.5)] * dogs, "cat": [found(0.5)] * cats}
    assert judge(IMAGE, objects, metadata, unexpected_color)[0] == (dogs > 0 and cats > 0)


def test_only_the_most_confident_instance_needs_the_color():
    metadata = {"include": [{"class": "car", "count": 1, "color": "red"}]}
    objects = {"car": [found(0.9), found(0.8)]}
    assert judge(IMAGE, objects, metadata, color_by_score({0.9: "red", 0.8: "blue"})) == (True, "")
    wrong = judge(IMAGE, objects, metadata, color_by_score({0.9: "blue", 0.8: "red"}))
    assert wrong == (False, "expected red car>=1, found 0 red; and 1 blue")


def test_colors_are_listed_in_the_official_order_and_foreign_ones_last():
    metadata = {"include": [{"class": "car", "count": 5, "color": "red"}]}
    names = dict(zip((0.9, 0.8, 0.7, 0.6, 0.5), ("teal", "white", "blue", "teal", "red"), strict=True))
    _, reason = judge(IMAGE, {"car": [found(score) for score in names]}, metadata, color_by_score(names))
    assert reason == "expected red car>=5, found 1 red; and 1 red, 1 blue, 1 white, 2 teal"


@pytest.mark.parametrize(("car", "dog"), list(product(("red", "blue", None), repeat=2)))
def test_color_attribution_wants_both_colors(car, dog):
    metadata = {
        "include": [
            {"class": "car", "count": 1, "color": "red"},
            {"class": "dog", "count": 1, "color": "blue"},
        ]
    }
    objects = {name: [found(0.9)] for name, color in (("car", car), ("dog", dog)) if color}
    names = {"car": car, "dog": dog}
    correct, _ = judge(IMAGE, objects, metadata, lambda image, detection, class_name: names[class_name])
    assert correct == (car == "red" and dog == "blue")


def test_a_missing_class_is_not_colored():
    metadata = {"include": [{"class": "car", "count": 1, "color": "red"}]}
    assert judge(IMAGE, {}, metadata, unexpected_color) == (False, "expected car>=1, found 0")


@pytest.mark.parametrize("wanted", RELATIONS)
def test_position_judges_the_most_confident_pair(wanted):
    metadata = {
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": [wanted, 0]}]
    }
    places = {
        "left of": (0, 200, 50, 250),
        "right of": (400, 200, 450, 250),
        "above": (200, 0, 250, 50),
        "below": (200, 400, 250, 450),
    }
    dog = found(0.9, (200, 200, 250, 250))
    for relation, place in places.items():
        decoy = found(0.4, places[wanted])
        objects = {"dog": [dog], "cat": [found(0.9, place), decoy]}
        correct, reason = judge(IMAGE, objects, metadata, unexpected_color)
        assert correct == (relation == wanted)
        assert reason == ("" if correct else f"expected cat {wanted} target, found {relation} target")


def test_position_needs_every_pair_of_the_groups():
    metadata = {
        "include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 2, "position": ["left of", 0]}]
    }
    dog, left, right = (
        found(0.9, (200, 0, 250, 50)),
        found(0.9, (0, 0, 50, 50)),
        found(0.8, (400, 0, 450, 50)),
    )
    assert judge(IMAGE, {"dog": [dog], "cat": [left, left]}, metadata, unexpected_color)[0]
    assert not judge(IMAGE, {"dog": [dog], "cat": [left, right]}, metadata, unexpected_color)[0]


def test_a_target_that_failed_its_color_is_no_target():
    metadata = {
        "include": [
            {"class": "dog", "count": 1, "color": "red"},
            {"class": "cat", "count": 1, "position": ["left of", 0]},
        ]
    }
    objects = {"dog": [found(0.9, (200, 0, 250, 50))], "cat": [found(0.8, (0, 0, 50, 50))]}
    assert judge(IMAGE, objects, metadata, color_by_score({0.9: "red"}))[0]
    _, reason = judge(IMAGE, objects, metadata, color_by_score({0.9: "blue"}))
    assert reason == "expected red dog>=1, found 0 red; and 1 blue\nno target for cat to be left of"


def test_a_failed_color_skips_the_position():
    metadata = {
        "include": [
            {"class": "dog", "count": 1},
            {"class": "cat", "count": 1, "color": "red", "position": ["above", 0]},
        ]
    }
    objects = {"dog": [found(0.9)], "cat": [found(0.8)]}
    _, reason = judge(IMAGE, objects, metadata, color_by_score({0.8: "blue"}))
    assert reason == "expected red cat>=1, found 0 red; and 1 blue"


def test_include_and_exclude_are_independent():
    metadata = {"include": [{"class": "dog", "count": 1}], "exclude": [{"class": "cat", "count": 1}]}
    _, reason = judge(IMAGE, {"cat": [found(0.9)]}, metadata, unexpected_color)
    assert reason == "expected dog>=1, found 0\nexpected cat<1, found 1"
    assert judge(IMAGE, {"bird": [found(0.9)]}, {}, unexpected_color) == (True, "")


def record(tag, prompt, correct):
    return Record(
        f"{tag} {prompt}/0", tag, prompt, correct, "", json.dumps({"tag": tag, "prompt": prompt}), "{}"
    )


def summarise(records):
    return numbers(GENEVAL, [asdict(record) for record in records])


def test_overall_is_the_mean_of_tasks_not_of_images():
    records = [record(task, f"{task} {i}", task == "counting") for task in TASKS for i in range(2)]
    records += [record("counting", f"more {i}", True) for i in range(100)]
    summary = summarise(records)
    assert summary["overall"].mean == pytest.approx(1 / 6)
    assert summary["correct_images"].mean == pytest.approx(102 / 112)
    assert summary["correct_prompts"].mean == pytest.approx(102 / 112)


def test_images_of_one_prompt_are_one_draw():
    four_alike = [record(task, f"{i}", i == 0) for task in TASKS for i in range(3) for _ in range(4)]
    one_each = [record(task, f"{i}", i == 0) for task in TASKS for i in range(3)]
    for records in (four_alike, one_each):
        score = summarise(records)["colors"]
        assert score.se == pytest.approx(np.std([1, 0, 0], ddof=1) / math.sqrt(3))
    assert summarise(four_alike)["overall"].se == pytest.approx(score.se / math.sqrt(6))


def test_a_prompt_is_correct_if_any_image_is():
    records = [record(task, "one", i == 3) for task in TASKS for i in range(4)]
    summary = summarise(records)
    assert summary["correct_prompts"].mean == 1
    assert summary["correct_images"].mean == 0.25
    assert math.isnan(summary["overall"].se)


@pytest.mark.parametrize("missing", TASKS)
def test_a_missing_task_is_named(missing):
    with pytest.raises(TrainingError, match=missing):
        check_tasks({task for task in TASKS if task != missing})


def test_an_unknown_task_is_named():
    with pytest.raises(TrainingError, match="size"):
        check_tasks({*TASKS, "size"})


def test_a_row_has_the_official_keys_in_order():
    kept = {"dog": [found(np.float32(0.5), (1, 2, 3, 4))]}
    row = json.loads(Record("a.png", "colors", "a dog", True, "", "{}", details(kept)).line())
    assert list(row) == ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert json.loads(row["details"]) == {"dog": [[1, 2, 3, 4, 0.5]]}


class Blind(Detector):
    classes = ("dog", "cat")
    colors = ("red", "blue")

    def detect(self, image):
        return {}

    def color(self, image, detection, class_name):
        return "red"


DOG = {"class": "dog", "count": 1}


@pytest.mark.parametrize(
    ("metadata", "fault"),
    [
        ({}, "tag"),
        ({"tag": "colours", "include": [DOG]}, "tag"),
        ({"tag": "colors"}, "include"),
        ({"tag": "colors", "include": []}, "include"),
        ({"tag": "colors", "include": [{"class": "dog"}]}, "count"),
        ({"tag": "colors", "include": [{"class": "dog", "count": 0}]}, "count"),
        ({"tag": "colors", "include": [{"class": "bird", "count": 1}]}, "'bird'"),
        ({"tag": "colors", "include": [{**DOG, "color": "green"}]}, "'green'"),
        ({"tag": "counting", "include": [DOG], "exclude": [{"class": "bird", "count": 2}]}, "'bird'"),
        ({"tag": "position", "include": [DOG, {**DOG, "position": ["near", 0]}]}, "position"),
        ({"tag": "position", "include": [DOG, {**DOG, "position": ["above", 1]}]}, "earlier"),
    ],
)
def test_a_prompt_that_cannot_be_judged_is_named(metadata, fault):
    with pytest.raises(RecipeError, match=fault) as error:
        check_prompts([Prompt("a photo", metadata)], Blind(Blind.Config()))
    assert "'a photo'" in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_line_is_the_official_one():
    metadata = {"tag": "position", "include": [DOG, {"class": "cat", "count": 1, "position": ["above", 0]}]}
    check_prompts([Prompt("a photo", metadata)], Blind(Blind.Config()))
    line = metadata_line(Prompt("a photo", metadata))
    assert line == json.dumps({**metadata, "prompt": "a photo"})
