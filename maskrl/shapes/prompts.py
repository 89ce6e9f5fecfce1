"""The prompts of the shapes world: those reinforcement learning sees, and those that judge it.

The two share no combination: the pairs of shapes, and the pairs of colour and shape, are split in two once and for
all, and the wording differs as well. A lone shape without a colour is left to the evaluation.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from maskrl.geneval.metadata import RELATIONS, TASKS
from maskrl.interfaces import PromptSet
from maskrl.shapes.captions import EVALUATION_PREFIX, TRAINING_PREFIXES, Caption, Clause
from maskrl.shapes.world import COLORS, PLACES, SHAPES
from maskrl.types import Prompt

PER_TASK = 40
_ORDER_SEED = 0  # the order of the lists and the choice of 40 are part of the benchmark


def _neighbours(a: str, b: str) -> bool:
    distance = (SHAPES.index(a) - SHAPES.index(b)) % len(SHAPES)
    return distance in (1, len(SHAPES) - 1)


def _training_color(color: str, shape: str) -> bool:
    return (list(COLORS).index(color) - SHAPES.index(shape)) % len(SHAPES) in (0, 3, 6)


def shape_pairs(training: bool) -> list[tuple[str, str]]:
    """Return the ordered pairs of different shapes of one side of the split: 16 for training, 40 for evaluation."""
    unordered = [pair for pair in combinations(SHAPES, 2) if _neighbours(*pair) == training]
    return [ordered for a, b in unordered for ordered in ((a, b), (b, a))]


def colored_shapes(training: bool) -> list[tuple[str, str]]:
    """Return the (color, shape) pairs of one side of the split: 24 for training, 40 for evaluation."""
    return [(c, s) for c, s in product(COLORS, SHAPES) if _training_color(c, s) == training]


def captions(task: str, training: bool) -> list[Caption]:
    """Return every caption of a task on one side of the split, in a fixed order."""
    pairs, colored = shape_pairs(training), colored_shapes(training)
    if task == "single_object":
        lone = (
            []
            if training
            else [Caption(task, (Clause(s),), None, p) for s in SHAPES for p in (None, *PLACES)]
        )
        return lone
    if task == "colors":
        return [Caption(task, (Clause(s, c),)) for c, s in colored]
    if task == "two_object":
        return [Caption(task, (Clause(a), Clause(b))) for a, b in pairs]
    if task == "counting":
        some = [Clause(s, c, n) for c, s in colored for n in (2, 3, 4)]
        plain = [] if training else [Clause(s, None, n) for s in SHAPES for n in (2, 3, 4)]
        return [Caption(task, (clause,)) for clause in plain + some]
    if task == "position":
        return [Caption(task, (Clause(a), Clause(b)), r) for a, b in pairs for r in RELATIONS]
    return [
        Caption(task, (Clause(a, ca), Clause(b, cb)))
        for a, b in pairs
        for (ca, sa), (cb, sb) in product(colored, repeat=2)
        if (sa, sb) == (a, b) and ca != cb
    ]


def _chosen(task: str, training: bool, count: int) -> list[Caption]:
    """Pick ``count`` captions of a task without replacement, or all of them; plain numbers are all kept."""
    every = captions(task, training)
    first = [c for c in every if task == "counting" and c.clauses[0].color is None]
    rest = [c for c in every if c not in first]
    rng = np.random.default_rng([_ORDER_SEED, TASKS.index(task)])
    order = rng.permutation(len(rest))[: max(0, count - len(first))]
    return first + [rest[i] for i in order]


class ShapesTrain(PromptSet):
    """Up to 64 prompts in each of five tasks (a lone shape is left to the evaluation), in four wordings."""

    def prompts(self) -> list[Prompt]:
        """Return the prompts, tasks interleaved, so that any run of them is balanced."""
        by_task = [_chosen(task, True, 64) for task in TASKS if task != "single_object"]
        longest = max(len(chosen) for chosen in by_task)
        found = []
        for i, chosen in product(range(longest), by_task):
            caption = chosen[i % len(chosen)]
            prefix = TRAINING_PREFIXES[(i + i // len(chosen)) % len(TRAINING_PREFIXES)]
            found.append(Prompt(caption.text(prefix), caption.metadata()))
        return found


class ShapesGenEval(PromptSet):
    """GenEval in the shapes world: 40 held-out prompts in each of the six tasks."""

    def prompts(self) -> list[Prompt]:
        """Return 240 prompts in the order of the tasks; ``metadata`` is GenEval's."""
        found = []
        for task in TASKS:
            for caption in _chosen(task, False, PER_TASK):
                text = caption.text(EVALUATION_PREFIX)
                found.append(Prompt(text, {**caption.metadata(), "prompt": text}))
        return found
