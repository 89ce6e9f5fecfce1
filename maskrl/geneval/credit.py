"""Partial credit: how much of what a prompt asks for an image shows. GenEval, made a reward.

Source: the reward of Flow-GRPO (arXiv 2505.05470), yifan123/reward-server at 92ac29f, restated. :data:`PARTIAL` differs
from it where it errs: there many objects too many cost without bound, and a wrong relation adds a 1 beside its 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maskrl.geneval.scoring import NameColor, Objects, relative_position
from maskrl.interfaces import Detection


@dataclass(frozen=True)
class Rule:
    """``floor``: the least that a wrong number earns. ``wrong_relation``: the terms that a violated relation adds."""

    floor: float
    wrong_relation: tuple[float, ...]


PARTIAL = Rule(floor=0.0, wrong_relation=(0.0,))
FLOW_GRPO = Rule(floor=-math.inf, wrong_relation=(0.0, 1.0))


def credit(
    image: Tensor, objects: Objects, metadata: Mapping[str, Any], color: NameColor, rule: Rule = PARTIAL
) -> tuple[bool, float]:
    """Score an image clause by clause, every object of a class counted and the number to be met exactly.

    Of n objects wanted and m found, a clause of ``include`` earns 1 - |n - m| / n. If m = n, its colour earns
    1 - |n - k| / n for k objects of that colour; if that is right too, its relation earns 1 where it holds between all
    objects of both clauses. If m differs from n, colour and relation together earn one 0. ``exclude`` is not looked
    at: in GenEval's prompts the exact number implies it.

    Args:
        image: Float [3, H, W] in [0, 1], handed to ``color``.
        objects: what :func:`maskrl.geneval.scoring.select` kept.
        metadata: GenEval's ``include``, at least one clause.
        color: names the colour of one detection of a class.
        rule: what differs between ours and Flow-GRPO's.

    Returns:
        Whether everything is met, and the mean of what was earned: in [0, 1] under :data:`PARTIAL`.
    """
    terms: list[float] = []
    groups: list[Sequence[Detection] | None] = []
    for clause in metadata["include"]:
        found = objects.get(clause["class"], ())
        earned = _earn(image, found, clause, groups, color, rule)
        groups.append(found if min(earned) == 1 else None)
        terms += earned
    return min(terms) == 1, sum(terms) / len(terms)


def _earn(
    image: Tensor,
    found: Sequence[Detection],
    clause: Mapping[str, Any],
    groups: Sequence[Sequence[Detection] | None],
    color: NameColor,
    rule: Rule,
) -> list[float]:
    """Return the terms of one clause, at most 1 each; all are 1 if it is met."""
    name, count = clause["class"], clause["count"]
    wanted, place = clause.get("color"), clause.get("position")
    number = max(_closeness(count, len(found)), rule.floor)
    if len(found) != count:
        return [number] if wanted is None and place is None else [number, 0.0]
    terms = [number]
    if wanted is not None:
        terms.append(_closeness(count, sum(color(image, detection, name) == wanted for detection in found)))
    if place is not None and terms[-1] == 1:
        terms += _earn_relation(found, place[0], groups[place[1]], rule)
    return terms


def _closeness(wanted: int, found: int) -> float:
    return 1 - abs(wanted - found) / wanted


def _earn_relation(
    found: Sequence[Detection], relation: str, others: Sequence[Detection] | None, rule: Rule
) -> tuple[float, ...]:
    if others is None:
        return (0.0,)
    held = all(relation in relative_position(a.box, b.box) for a in found for b in others)
    return (1.0,) if held else rule.wrong_relation
