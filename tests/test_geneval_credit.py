"""Partial credit: values obtained from Flow-GRPO's own function, and what ours says in their place."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrl.geneval.credit import FLOW_GRPO, PARTIAL, credit
from maskrl.geneval.scoring import judge
from maskrl.interfaces import Detection

IMAGE = torch.zeros(3, 8, 8)
MASK = np.zeros((8, 8), dtype=np.bool_)
LEFT, RIGHT = (0, 0, 50, 50), (300, 0, 350, 50)
CAR = {"class": "car", "count": 1, "color": "red"}
DOG = {"class": "dog", "count": 1, "color": "blue"}
BESIDE = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]


def found(number=1, box=LEFT):
    return [Detection(box, 0.95, MASK)] * number


def scores(include, objects, names=None):
    """(met, Flow-GRPO's score, ours); ``names`` is the colour of each class."""
    results = [
        credit(IMAGE, objects, {"include": include}, lambda i, d, name: names[name], rule)
        for rule in (FLOW_GRPO, PARTIAL)
    ]
    (met, theirs), (met_too, ours) = results
    assert met == met_too
    return met, theirs, ours


@pytest.mark.parametrize(
    ("wanted", "number", "theirs"),
    [
        *zip([1] * 5, (0, 1, 2, 3, 16), (0, 1, 0, -1, -14), strict=True),
        *zip([2] * 8, (0, 1, 2, 3, 4, 5, 8, 16), (0, 0.5, 1, 0.5, 0, -0.5, -2, -6), strict=True),
        *zip([4] * 8, (0, 1, 2, 3, 4, 5, 8, 16), (0, 0.25, 0.5, 0.75, 1, 0.75, 0, -2), strict=True),
    ],
)
def test_a_number_earns_by_its_distance(wanted, number, theirs):
    include = [{"class": "dog", "count": wanted}]
    expected = (number == wanted, theirs, max(theirs, 0))
    assert scores(include, {"dog": found(number)}) == expected


@pytest.mark.parametrize(
    ("dogs", "cats", "met", "score"), [(1, 1, True, 1), (0, 1, False, 0.5), (2, 1, False, 0.5)]
)
def test_two_objects(dogs, cats, met, score):
    include = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1}]
    assert scores(include, {"dog": found(dogs), "cat": found(cats)}) == (met, score, score)


@pytest.mark.parametrize(
    ("cars", "color", "met", "score"),
    [(1, "red", True, 1), (1, "blue", False, 0.5), (0, "red", False, 0), (2, "red", False, 0)],
)
def test_one_color(cars, color, met, score):
    assert scores([CAR], {"car": found(cars)}, {"car": color}) == (met, score, score)


@pytest.mark.parametrize(
    ("cars", "dogs", "names", "met", "score"),
    [
        (1, 1, {"car": "red", "dog": "blue"}, True, 1),
        (1, 1, {"car": "red", "dog": "red"}, False, 0.75),
        (1, 1, {"car": "blue", "dog": "red"}, False, 0.5),
        (1, 0, {"car": "red"}, False, 0.5),
        (0, 0, {}, False, 0),
    ],
)
def test_two_colors(cars, dogs, names, met, score):
    assert scores([CAR, DOG], {"car": found(cars), "dog": found(dogs)}, names) == (met, score, score)


@pytest.mark.parametrize(
    ("dogs", "cats", "place", "expected"),
    [
        (1, 1, LEFT, (True, 1, 1)),
        (1, 1, (600, 0, 650, 50), (False, 0.75, 2 / 3)),  # theirs adds a 1 beside the 0
        (0, 1, LEFT, (False, 1 / 3, 1 / 3)),
        (1, 0, LEFT, (False, 1 / 3, 1 / 3)),
        (0, 0, LEFT, (False, 0, 0)),
    ],
)
def test_a_relation(dogs, cats, place, expected):
    assert scores(BESIDE, {"dog": found(dogs, RIGHT), "cat": found(cats, place)}) == pytest.approx(expected)


def test_some_of_the_right_color_earn_their_share():
    cars = [Detection(LEFT, score, MASK) for score in (0.9, 0.8, 0.7, 0.6)]
    metadata = {"include": [{**CAR, "count": 4}]}
    colors = {0.9: "red", 0.8: "blue", 0.7: "red", 0.6: "red"}
    assert credit(IMAGE, {"car": cars}, metadata, lambda i, d, name: colors[d.score]) == (False, 0.875)


def test_a_wrong_color_is_no_target_and_leaves_its_own_relation_out():
    painted = [{**BESIDE[0], "color": "blue"}, {**BESIDE[1], "color": "red"}]
    objects = {"dog": found(1, RIGHT), "cat": found(1, LEFT)}
    right, wrong = {"dog": "blue", "cat": "red"}, {"dog": "red", "cat": "red"}
    assert scores(painted, objects, right) == (True, 1, 1)
    assert scores(painted, objects, wrong)[1:] == pytest.approx((3 / 5, 3 / 5))  # 1, 0; 1, 1, 0
    assert scores(painted, objects, {"dog": "blue", "cat": "blue"})[1:] == (0.75, 0.75)  # 1, 1; 1, 0


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=3), st.lists(st.integers(1, 4), min_size=3, max_size=3)
)
def test_what_is_met_exactly_is_officially_correct(numbers, counts):
    include = [{"class": str(i), "count": counts[i]} for i in range(len(numbers))]
    exclude = [{"class": str(i), "count": counts[i] + 1} for i in range(len(numbers))]
    objects = {str(i): found(number) for i, number in enumerate(numbers)}
    met, _, ours = scores(include, objects)
    correct, _ = judge(IMAGE, objects, {"include": include, "exclude": exclude}, lambda i, d, name: "red")
    assert met == correct == (ours == 1)
    assert 0 <= ours <= 1


@pytest.mark.parametrize(("near", "far"), [pair for pair in product(range(5), repeat=2) if pair[0] < pair[1]])
def test_nearer_to_the_number_never_earns_less(near, far):
    include = [{"class": "dog", "count": 3}]
    for sign in (-1, 1):
        numbers = [max(0, 3 + sign * distance) for distance in (near, far)]
        closer, farther = (scores(include, {"dog": found(number)})[2] for number in numbers)
        assert closer >= farther
