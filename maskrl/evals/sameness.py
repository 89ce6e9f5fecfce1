"""Whether two settings of evaluations mean the same: what is told by contents is compared by contents.

Results and images from before contents were hashed name files by their paths, and classes from files by a number made
of the path. Such a value is hashed now if it can be; if not, nobody knows, and that is an answer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from maskrl.errors import MaskRLError
from maskrl.identity import content
from maskrl.registry import LOCAL_MODULE


class Answer(Enum):
    """Whether two values mean the same."""

    SAME = 0
    UNKNOWN = 1
    OTHER = 2


LATER = frozenset({"precision", "source_sha256"})  # keys that older settings do not have

BEFORE = {  # what there was before it could be chosen: older settings do not say so
    "value_temperature_rule": "constant",
    "value_temperature": 1.0,
    "score": "log_prob",
    "position_policy": "confidence",
    "guidance_rule": "constant",
}


def compare(first: Any, second: Any) -> Answer:
    """Compare two values of settings as JSON has them."""
    if first == second:
        return Answer.SAME
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        if "sha256" in first or "sha256" in second:
            return Answer.OTHER
        answers = [_compare_key(key, first, second) for key in {*first, *second}]
        return max(answers, key=lambda answer: answer.value, default=Answer.SAME)
    for old, new in ((first, second), (second, first)):
        if isinstance(old, str) and isinstance(new, Mapping):
            return _compare_old(old, new)
    return Answer.OTHER


def _compare_key(key: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Answer:
    if key in LATER and (key not in first or key not in second):
        return Answer.UNKNOWN
    if key == "class":
        return Answer.SAME if _class(first.get(key)) == _class(second.get(key)) else Answer.OTHER
    return compare(*(settings.get(key, BEFORE.get(key)) for settings in (first, second)))


def _class(name: object) -> str:
    """Drop the number in the name of a module that was imported from a file: it is made of the path."""
    module, _, attribute = str(name).rpartition(":")
    return attribute if module.startswith(LOCAL_MODULE) else str(name)


def _compare_old(old: str, new: Mapping[str, Any]) -> Answer:
    """Compare a setting that is a path with one that is known by its contents."""
    try:
        now = content(old)
    except MaskRLError:
        return Answer.UNKNOWN
    if isinstance(now, str):
        return Answer.UNKNOWN
    return Answer.SAME if now == new else Answer.OTHER


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys under which two tables certainly do not mean the same."""
    return _with(Answer.OTHER, first, second)


def unknown(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return the keys under which nobody can say whether two tables mean the same."""
    return _with(Answer.UNKNOWN, first, second)


def _with(answer: Answer, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*first, *second} if _compare_key(key, first, second) is answer)
