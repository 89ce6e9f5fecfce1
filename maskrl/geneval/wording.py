"""How GenEval words things: articles, numbers, and its plural, which is naive and kept so ("two toothbrushs")."""

from __future__ import annotations

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
    "twenty",
)


def with_article(noun: str) -> str:
    """Return "a dog", "an orange"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """Return "dogs", "buses", "toothbrushs"."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """Return "one dog", "two dogs"; ``number`` in [0, 20]."""
    return f"{NUMBERS[number]} {noun if number == 1 else plural(noun)}"
