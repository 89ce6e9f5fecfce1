"""Random scenes for GenEval's rules, made of PCG64's raw numbers: every machine and every numpy makes the same ones.

A scene is what a detector might have found in one image of a prompt. Scores lie on and beside the thresholds, some are
equal; there are more than sixteen objects of a class; boxes stand apart, on a lattice, diagonally, around one centre,
are empty, or repeat; prompts have the six official forms or a free one, with any clauses.
"""

from dataclasses import dataclass

import numpy as np

from maskrl.geneval.coco import COLORS
from maskrl.geneval.metadata import RELATIONS, TASKS
from maskrl.interfaces import Detection

PROMPTS, SEED = 760, 43
CLASSES = ("dog", "cat", "traffic light", "computer mouse", "car", "orange")
CENTRE = 256
DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
MASK = np.zeros((1, 1), dtype=np.bool_)


def beside(threshold):
    """A threshold in single precision, and its neighbours: three scores."""
    here = np.float32(threshold)
    near = (np.nextafter(here, np.float32(0)), here, np.nextafter(here, np.float32(1)))
    return [float(score) for score in near]


EDGES = (*beside(0.3), *beside(0.9), 0.0, 0.5, 0.9375, 0.9375, 1.0)


class Draws:
    """Whole numbers: the 64-bit words of PCG64, modulo."""

    def __init__(self, *seed):
        self._words = np.random.PCG64(seed)

    def below(self, limit):
        return int(self._words.random_raw()) % limit

    def pick(self, items):
        return items[self.below(len(items))]

    def chance(self, percent):
        return self.below(100) < percent


@dataclass(frozen=True)
class Scene:
    """What was found in one image, and which colour each object has, by class and place in the list."""

    metadata: dict
    prompt: str
    candidates: dict
    colors: dict
    max_overlap: float

    def color(self, image, detection, class_name):
        found = self.candidates[class_name]
        return self.colors[class_name][next(i for i, other in enumerate(found) if other is detection)]


def scenes():
    """Return every scene, one to seven for each prompt."""
    found = []
    for p in range(PROMPTS):
        draws, tag = Draws(SEED, p), TASKS[p % len(TASKS)]
        official = draws.chance(65)
        metadata = {"tag": tag, **(_official_form(tag, draws) if official else _free_form(draws))}
        max_overlap = 1.0 if official else draws.pick((1.0, 0.5, 0.9))
        for _ in range(1 + draws.below(7)):
            candidates, colors = _paint(metadata, draws)
            found.append(Scene(metadata, f"{tag} {p}", candidates, colors, max_overlap))
    return found


def _two(items, draws):
    first = draws.pick(items)
    return first, draws.pick([item for item in items if item != first])


def _official_form(tag, draws):
    a, b = _two(CLASSES, draws)
    one, other = {"class": a, "count": 1}, {"class": b, "count": 1}
    first, second = _two(COLORS, draws)
    number = 2 + draws.below(3)
    include = {
        "single_object": [one],
        "two_object": [one, other],
        "counting": [{**one, "count": number}],
        "colors": [{**one, "color": first}],
        "position": [one, {**other, "position": [draws.pick(RELATIONS), 0]}],
        "color_attr": [{**one, "color": first}, {**other, "color": second}],
    }[tag]
    exclude = {"exclude": [{"class": a, "count": number + 1}]} if tag == "counting" else {}
    return {"include": include, **exclude}


def _free_form(draws):
    include = []
    for index in range(1 + draws.below(3)):
        clause = {"class": draws.pick(CLASSES), "count": 1 + draws.below(3)}
        if draws.chance(40):
            clause["color"] = draws.pick(COLORS)
        if index and draws.chance(60):
            clause["position"] = [draws.pick(RELATIONS), draws.below(index)]
        include.append(clause)
    exclude = [
        {"class": draws.pick(CLASSES), "count": draws.pick((1, 2, 3, 16, 17))} for _ in range(draws.below(3))
    ]
    return {"include": include, **({"exclude": exclude} if exclude else {})}


def _paint(metadata, draws):
    anchors, candidates, colors = _anchors(metadata, draws), {}, {}
    wanted = {clause["class"]: clause for clause in metadata["include"]}
    for name in CLASSES:
        clause = wanted.get(name, {"count": 0})
        boxes, candidates[name], colors[name] = [], [], []
        for _ in range(_number(clause["count"], draws)):
            boxes.append(_box(anchors[name], boxes, draws))
            score = _score(metadata["tag"] == "counting", draws)
            candidates[name].append(Detection(boxes[-1], score, MASK))
            asked = "color" in clause and draws.chance(75)
            colors[name].append(clause["color"] if asked else draws.pick(COLORS))
    return candidates, colors


def _anchors(metadata, draws):
    """A place for every class; mostly such that the relations hold."""
    places = {name: (40 + draws.below(432), 40 + draws.below(432)) for name in CLASSES}
    obey = draws.chance(60)
    for clause in metadata["include"]:
        if obey and "position" in clause:
            relation, target = clause["position"]
            x, y = places[metadata["include"][target]["class"]]
            right, down = DIRECTIONS[relation]
            places[clause["class"]] = (x + 180 * right + draws.below(80) - 40, y + 180 * down)
    return places


def _number(wanted, draws):
    if draws.chance(3):
        return 14 + draws.below(9)
    if wanted:
        return max(0, wanted + draws.pick((-1, 0, 0, 0, 0, 1, 2)))
    return draws.pick((0, 0, 0, 0, 1, 2))


def _box(anchor, earlier, draws):
    kind = draws.below(20)
    if kind < 10:  # about the class's place
        (x, y), width, height = anchor, 20 + draws.below(100), 20 + draws.below(100)
        return corners(x - width // 2 + draws.below(9), y - height // 2, width, height)
    if kind < 13:  # on a lattice: exact halves and diagonals
        return corners(20 * draws.below(20), 20 * draws.below(20), 100, 100)
    if kind < 15:  # around one centre
        half_width, half_height = 1 + draws.below(200), 1 + draws.below(200)
        return corners(CENTRE - half_width, CENTRE - half_height, 2 * half_width, 2 * half_height)
    if kind == 15:  # an empty mask's
        return corners(0, 0, 0, 0)
    if kind == 16 and earlier:
        return earlier[-1]
    return corners(draws.below(400), draws.below(400), 1 + draws.below(200), 1 + draws.below(200))


def corners(x, y, width, height):
    return (float(x), float(y), float(x + width), float(y + height))


def _score(counting, draws):
    if draws.chance(25):
        return draws.pick(EDGES)
    low = 0.9 if counting else 0.3
    if draws.chance(12):
        low -= 0.25  # most of these do not count
    return float(np.float32(low + (1 - low) * draws.below(1 << 20) / (1 << 20)))


def pairs(number=1500):
    """Return pairs of boxes: what stands where to what."""
    draws = Draws(SEED, PROMPTS)
    anchor = (CENTRE, CENTRE)
    return [(_box(anchor, [], draws), _box(anchor, [], draws)) for _ in range(number)]
