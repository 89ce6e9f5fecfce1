"""A line of the doctor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found.

    Attributes:
        topic: "versions", "extras", "devices", "room", "weights", "recipe".
        status: "missing" is what the recipe cannot do without; "note" is for a person to know.
        text: what was found.
        advice: what to do about it; nothing where there is nothing to do.
    """

    topic: str
    status: Literal["fine", "note", "missing"]
    text: str
    advice: str = ""
