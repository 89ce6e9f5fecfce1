"""What is wrong with settings, one line a mistake, at the key that the user wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from pydantic_core import ErrorDetails

from maskrl import registry

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MOST_CHARACTERS = 60  # of a value, or of a part of a key, in a message
_MAY_BE_ABSENT = ("missing", "value_error")  # what these complain of may not be there


def lines(details: Sequence[ErrorDetails], data: Any, known: Sequence[Sequence[str]] = ()) -> list[str]:
    """Say pydantic's complaints about data: one line each, those of a union's branches together.

    Args:
        details: what ``ValidationError.errors()`` returns.
        data: what was validated.
        known: for each of them what an unknown key could have been.
    """
    said = [
        (key_of(detail, data), *_say(detail, keys))
        for detail, keys in zip(details, known or [()] * len(details), strict=True)
    ]
    return [
        f"{key}: {' or '.join(dict.fromkeys(fault for _, fault, _ in same))}{value}".removeprefix(": ")
        for (key, value), same in groupby(said, key=lambda one: (one[0], one[2]))
    ]


def key_of(detail: ErrorDetails, data: Any) -> str:
    """Write where a mistake is, as TOML writes a key; the names that pydantic gives a union's branches are left out."""
    parts: list[str] = []
    here = data
    for number, part in enumerate(detail["loc"], start=1):
        if _holds(here, part):
            here = here[part]
        elif number < len(detail["loc"]) or detail["type"] not in _MAY_BE_ABSENT:
            continue
        parts.append(str(part))
    return told(parts)


def written(key: Sequence[str]) -> str:
    """Return a dotted key as TOML writes it."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else _quoted(part) for part in key)


def told(key: Sequence[str]) -> str:
    """Return a dotted key as a message names it: a part that is longer than any of ours is cut."""
    return written([_cut(part) for part in key])


def _quoted(part: str) -> str:
    """Quote a part of a key; JSON's pairs of escapes, for characters beyond the first 65,536, are none in TOML."""
    text = json.dumps(part, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in text)


def _holds(data: Any, part: int | str) -> bool:
    if isinstance(part, int):
        return isinstance(data, list | tuple) and part < len(data)
    return isinstance(data, Mapping) and part in data


def _say(detail: ErrorDetails, known: Sequence[str]) -> tuple[str, str]:
    """Say what is wrong, and of which value."""
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] == "extra_forbidden":
        return f"unknown key{registry.nearest(str(detail['loc'][-1]), known)}", ""
    if detail["type"] == "missing":
        return "is missing", ""
    if detail["type"] == "model_type":
        return f"is a section: write [{told([str(part) for part in detail['loc']])}]", ""
    if cause is not None:
        return "; ".join(str(cause).splitlines()), ""
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}", f", not {shown(detail['input'])}"


def shown(value: Any) -> str:
    """Return a value as a message shows it: in one line, cut where it is long."""
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "…"
