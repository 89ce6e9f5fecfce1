"""GenEval's rules: which detections count, where objects stand, whether an image is what was asked.

Source: the official evaluator, djghosh13/geneval at af4902f, restated.
Boxes are (x1, y1, x2, y2) in pixels, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from maskrl.geneval.coco import COLORS
from maskrl.geneval.metadata import RELATIONS
from maskrl.interfaces import Detection

Box = tuple[float, float, float, float]
Objects = Mapping[str, Sequence[Detection]]
NameColor = Callable[[Tensor, Detection, str], str]

THRESHOLD = 0.3
COUNTING_THRESHOLD = 0.9  # for every class of a counting image
MAX_OBJECTS = 16
POSITION_THRESHOLD = 0.1


def select(candidates: Objects, tag: str, max_overlap: float = 1.0) -> dict[str, list[Detection]]:
    """Keep what counts, each class for itself, the most confident first; a class with nothing left is absent.

    Args:
        candidates: every detection of an image by class.
        tag: the task; "counting" asks for more confidence.
        max_overlap: greedy non-maximum suppression drops an IoU this large; 1, as officially, means none.
    """
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    kept = {name: _select_class(found, threshold, max_overlap) for name, found in candidates.items()}
    return {name: found for name, found in kept.items() if found}


def _select_class(found: Sequence[Detection], threshold: float, max_overlap: float) -> list[Detection]:
    # Single precision, as officially: a score of 0.3 has to lose against a threshold of 0.3, whichever is rounded.
    scores = np.asarray([detection.score for detection in found], dtype=np.float32)
    # Of equal scores the last comes first. Officially their order is not guaranteed; this is the usual one.
    order = np.argsort(scores, kind="stable")[::-1]
    confident = [found[i] for i in order if scores[i] > np.float32(threshold)][:MAX_OBJECTS]
    if max_overlap == 1:
        return confident
    kept: list[Detection] = []
    for detection in confident:
        if all(iou(detection.box, other.box) < max_overlap for other in kept):
            kept.append(detection)
    return kept


def iou(a: Box, b: Box) -> float:
    """Intersection over union in [0, 1]; a box includes its last pixel: width is x2 - x1 + 1."""
    overlap = _area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = _area(a) + _area(b) - overlap
    return overlap / union if union else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def relative_position(subject: Box, reference: Box) -> frozenset[str]:
    """Return where ``subject`` stands to ``reference``: none, one or, on a diagonal, two of RELATIONS.

    The offset of the centres is shrunk by a tenth of the summed sizes and divided by its length before
    shrinking; more than one half along an axis makes a relation.
    """
    dx, dy = _shrunk_offset(subject, reference, axis=0), _shrunk_offset(subject, reference, axis=1)
    if abs(dx) < 1e-3 and abs(dy) < 1e-3:
        return frozenset()
    half = 0.5 * math.hypot(_offset(subject, reference, axis=0), _offset(subject, reference, axis=1))
    held = {"left of": dx < -half, "right of": dx > half, "above": dy < -half, "below": dy > half}
    return frozenset(relation for relation in RELATIONS if held[relation])


def _offset(a: Box, b: Box, axis: int) -> float:
    return (a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2


def _shrunk_offset(a: Box, b: Box, axis: int) -> float:
    offset = _offset(a, b, axis)
    sizes = abs(a[axis + 2] - a[axis]) + abs(b[axis + 2] - b[axis])
    return math.copysign(max(abs(offset) - POSITION_THRESHOLD * sizes, 0.0), offset)


def judge(image: Tensor, objects: Objects, metadata: Mapping[str, Any], color: NameColor) -> tuple[bool, str]:
    """Decide whether an image shows what its prompt asks for.

    Clauses of ``include`` are checked in order, then those of ``exclude``; all must hold. Colour and position
    look at the ``count`` most confident objects of a class only.

    Args:
        image: Float [3, H, W] in [0, 1], handed to ``color``.
        objects: what :func:`select` kept.
        metadata: GenEval's ``include`` and, where it has one, ``exclude``.
        color: names the colour of one detection of a class.

    Returns:
        Whether it is correct, and what is wrong: the official texts, a line each, empty if correct.
    """
    faults: list[str] = []
    groups: list[Sequence[Detection] | None] = []
    for clause in metadata.get("include", ()):
        found = objects.get(clause["class"], ())[: clause["count"]]
        fault = _find_fault(image, found, clause, groups, color)
        groups.append(None if fault else found)
        faults += [fault] if fault else []
    for clause in metadata.get("exclude", ()):
        number = len(objects.get(clause["class"], ()))
        if number >= clause["count"]:
            faults.append(f"expected {clause['class']}<{clause['count']}, found {number}")
    return not faults, "\n".join(faults)


def _find_fault(
    image: Tensor,
    found: Sequence[Detection],
    clause: Mapping[str, Any],
    groups: Sequence[Sequence[Detection] | None],
    color: NameColor,
) -> str:
    """Return what is wrong with one clause of ``include``, or an empty text."""
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return f"expected {name}>={count}, found {len(found)}"
    fault = ""
    if clause.get("color") is not None:
        fault = _color_fault([color(image, detection, name) for detection in found], clause)
    if clause.get("position") is not None and not fault:
        fault = _position_fault(found, clause, groups)
    return fault


def _color_fault(colors: Sequence[str], clause: Mapping[str, Any]) -> str:
    wanted, number = clause["color"], colors.count(clause["color"])
    if number >= clause["count"]:
        return ""
    seen = ", ".join(f"{colors.count(color)} {color}" for color in _in_order(colors))
    return f"expected {wanted} {clause['class']}>={clause['count']}, found {number} {wanted}; and {seen}"


def _in_order(colors: Sequence[str]) -> list[str]:
    """Return each colour once: the official ones in their order, then others as they come."""
    others = [color for color in dict.fromkeys(colors) if color not in COLORS]
    return [color for color in COLORS if color in colors] + others


def _position_fault(
    found: Sequence[Detection], clause: Mapping[str, Any], groups: Sequence[Sequence[Detection] | None]
) -> str:
    relation, target = clause["position"]
    others = groups[target]
    if others is None:
        return f"no target for {clause['class']} to be {relation}"
    for detection in found:
        for other in others:
            held = relative_position(detection.box, other.box)
            if relation not in held:
                seen = " and ".join(sorted(held))
                return f"expected {clause['class']} {relation} target, found {seen} target"
    return ""
