"""How the people who captioned the base model's training pictures erred, and near misses to teach a judge with.

The tiny Show-o is trained on pictures whose captions were *misread*: that is what makes it imperfect in the way real
models are, and leaves something for a reward to teach. The tiny CLIP is trained on true captions and their near misses.
The rates are stated on the weights' card.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from maskrl.geneval.metadata import RELATIONS, TASKS
from maskrl.shapes.captions import Caption, Clause
from maskrl.shapes.world import COLORS, GRID, PLACES, SHAPES, Scene, add

_SHAPE_PAIRS = (("circle", "ring"), ("square", "diamond"), ("star", "cross"), ("triangle", "heart"))
_COLOR_PAIRS = (("red", "pink"), ("orange", "yellow"), ("green", "blue"), ("purple", "brown"))
PARTNER = {a: b for pair in _SHAPE_PAIRS + _COLOR_PAIRS for a, b in (pair, pair[::-1])}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_MISCOUNTS = {2: (1, 3), 3: (2, 4), 4: (2, 3)}  # what a number is taken for
TASK_WEIGHTS = (0.08, 0.2, 0.2, 0.12, 0.2, 0.2)  # in the order of TASKS
HARD_TASK_WEIGHTS = (0.04, 0.08, 0.22, 0.04, 0.31, 0.31)  # more of numbers, sides, and whose colour is which


@dataclass(frozen=True)
class Rates:
    """How often a captioner errs, chances in [0, 1].

    Attributes:
        shape: a shape is taken for its partner.
        color: a colour is taken for its partner.
        miscount: a number is wrong.
        opposite: a relation is turned round.
        other_axis: a relation is one along the other axis.
        swap: two objects exchange their colours.
        missing: one of two objects is not there.
        broken: an object is broken, its left half right and its right half left. No caption speaks of it.
    """

    shape: float
    color: float
    miscount: float = 0.6
    opposite: float = 0.46
    other_axis: float = 0.04
    swap: float = 0.48
    missing: float = 0.04
    broken: float = 0.0


NEVER_WRONG = Rates(shape=0, color=0, miscount=0, opposite=0, other_axis=0, swap=0, missing=0)
OFTEN_RIGHT = Rates(shape=0.3, color=0.28)  # what is likeliest is right: guidance finds it
OFTEN_WRONG = Rates(shape=0.58, color=0.55)  # what is likeliest is wrong: guidance makes it likelier

# captions mostly right, of pictures that are often bad: no guidance asks for what captions do not speak of
OFTEN_BROKEN = Rates(shape=0.1, color=0.1, miscount=0.3, opposite=0.15, swap=0.15, broken=0.55)


def random_caption(rng: np.random.Generator, weights: Sequence[float] = TASK_WEIGHTS) -> Caption:
    """Draw a caption of any task, shapes and colours over the whole world: both sides of the prompts' split."""
    task = str(rng.choice(TASKS, p=weights))
    a, b = (str(s) for s in rng.choice(SHAPES, size=2, replace=False))
    ca, cb = (str(c) for c in rng.choice(list(COLORS), size=2, replace=False))
    if task == "single_object":
        place = str(rng.choice(list(PLACES))) if rng.random() < 0.6 else None
        return Caption(task, (Clause(a),), None, place)
    if task == "colors":
        return Caption(task, (Clause(a, ca),))
    if task == "counting":
        color = ca if rng.random() < 0.5 else None
        return Caption(task, (Clause(a, color, int(rng.integers(2, 5))),))
    if task == "color_attr":
        return Caption(task, (Clause(a, ca), Clause(b, cb)))
    relation = str(rng.choice(RELATIONS)) if task == "position" else None
    return Caption(task, (Clause(a), Clause(b)), relation)


def misread(caption: Caption, rng: np.random.Generator, rates: Rates = OFTEN_RIGHT) -> Caption:
    """Return what is really in the picture that carries ``caption`` in a base model's training data."""
    clauses = [_misread_clause(clause, rng, rates) for clause in caption.clauses]
    relation = caption.relation
    if len(clauses) == 2 and clauses[0].color is not None and rng.random() < rates.swap:
        clauses = [replace(clauses[0], color=clauses[1].color), replace(clauses[1], color=clauses[0].color)]
    if relation is not None:
        draw = rng.random()
        if draw < rates.opposite:
            relation = OPPOSITE[relation]
        elif draw < rates.opposite + rates.other_axis:
            relation = _other_axis(relation, rng)
    if len(clauses) == 2 and rng.random() < rates.missing:
        clauses, relation = [clauses[rng.integers(2)]], None
    return replace(caption, clauses=tuple(clauses), relation=relation)


def break_things(codes: Tensor, scene: Scene, rng: np.random.Generator, chance: float) -> Tensor:
    """Let some things' left and right tokens change places: Long [6, 6], rows first, to another such.

    Tokens, not pixels: halves that are cut in pixels have tokens of no other picture, and a painter that is unsure of
    them paints around them.
    """
    codes = codes.clone()
    for thing in scene:
        if rng.random() < chance:
            x, y = int(thing.x) // GRID, int(thing.y) // GRID
            square = slice(y - 1, y + 1), slice(x - 1, x + 1)
            codes[square] = codes[square].flip(1)
    return codes


def near_miss(caption: Caption, rng: np.random.Generator) -> Caption:
    """Return a caption that differs in one thing; usually it is false where ``caption`` is true, and the other way."""
    changes = [_change_shape]
    if any(clause.color for clause in caption.clauses):
        changes.append(_change_color)
    if caption.task == "counting":
        changes += [_change_count, _change_count]
    if caption.relation:
        changes += [_change_relation, _change_relation]
    if caption.task == "color_attr":
        changes.append(_swap_colors)
    if len(caption.clauses) == 2:
        changes.append(_drop)
    return changes[rng.integers(len(changes))](caption, rng)


def disturb(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene with one to five objects more, one less, one of another kind, or one elsewhere."""
    change = rng.choice(("add", "add", "remove", "exchange", "move"))
    index = int(rng.integers(len(scene)))
    others = scene[:index] + scene[index + 1 :]
    if change == "remove" and others:
        return others
    if change == "exchange":
        thing = scene[index]
        if rng.random() < 0.5:
            return (*others, replace(thing, shape=str(rng.choice(SHAPES))))
        return (*others, replace(thing, color=str(rng.choice(list(COLORS)))))
    if change == "move":
        return add(others, scene[index].shape, scene[index].color, rng)
    for _ in range(rng.integers(1, 6)):
        shape, color = scene[index].shape, scene[index].color
        if rng.random() < 0.4:
            shape = str(rng.choice(SHAPES))
        if rng.random() < 0.5:
            color = str(rng.choice(list(COLORS)))
        scene = add(scene, shape, color, rng)
    return scene


def _misread_clause(clause: Clause, rng: np.random.Generator, rates: Rates) -> Clause:
    shape = PARTNER[clause.shape] if rng.random() < rates.shape else clause.shape
    color = clause.color
    if color is not None and rng.random() < rates.color:
        color = PARTNER[color]
    count = clause.count
    if count > 1 and rng.random() < rates.miscount:
        count = int(rng.choice(_MISCOUNTS[count]))
    return Clause(shape, color, count)


def _other_axis(relation: str, rng: np.random.Generator) -> str:
    others = [r for r in RELATIONS if r not in (relation, OPPOSITE[relation])]
    return others[rng.integers(2)]


def _with_clause(caption: Caption, index: int, clause: Clause) -> Caption:
    clauses = list(caption.clauses)
    clauses[index] = clause
    return replace(caption, clauses=tuple(clauses))


def _pick(caption: Caption, rng: np.random.Generator) -> tuple[int, Clause]:
    index = int(rng.integers(len(caption.clauses)))
    return index, caption.clauses[index]


def _change_shape(caption: Caption, rng: np.random.Generator) -> Caption:
    index, clause = _pick(caption, rng)
    taken = {c.shape for c in caption.clauses}
    partner = PARTNER[clause.shape]
    free = [s for s in SHAPES if s not in taken]
    shape = partner if partner not in taken and rng.random() < 0.6 else free[rng.integers(len(free))]
    return _with_clause(caption, index, replace(clause, shape=shape))


def _change_color(caption: Caption, rng: np.random.Generator) -> Caption:
    index, clause = _pick(caption, rng)
    if clause.color is None:
        return _change_shape(caption, rng)
    taken = {c.color for c in caption.clauses}
    partner = PARTNER[clause.color]
    free = [c for c in COLORS if c not in taken]
    color = partner if partner not in taken and rng.random() < 0.6 else free[rng.integers(len(free))]
    return _with_clause(caption, index, replace(clause, color=color))


def _change_count(caption: Caption, rng: np.random.Generator) -> Caption:
    clause = caption.clauses[0]
    others = [n for n in (2, 3, 4) if n != clause.count]
    return _with_clause(caption, 0, replace(clause, count=others[rng.integers(2)]))


def _change_relation(caption: Caption, rng: np.random.Generator) -> Caption:
    if caption.relation is None:
        return _change_shape(caption, rng)
    turned = rng.random() < 0.6
    return replace(
        caption, relation=OPPOSITE[caption.relation] if turned else _other_axis(caption.relation, rng)
    )


def _swap_colors(caption: Caption, rng: np.random.Generator) -> Caption:
    first, second = caption.clauses
    return replace(caption, clauses=(replace(first, color=second.color), replace(second, color=first.color)))


def _drop(caption: Caption, rng: np.random.Generator) -> Caption:
    task = "single_object" if caption.clauses[0].color is None else "colors"
    return Caption(task, (caption.clauses[rng.integers(2)],))
