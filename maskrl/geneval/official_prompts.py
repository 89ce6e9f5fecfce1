"""GenEval's 553 prompts, drawn anew: the file is a function of a seed, so that the seed is all there is to keep.

Source: Ghosh et al. 2023 (arXiv 2310.11513); djghosh13/geneval at af4902f, its facts restated: the seed and
the order of draws. The sha256 of the published ``evaluation_metadata.jsonl`` is checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maskrl.errors import TrainingError
from maskrl.geneval.coco import CLASSES, COLORS
from maskrl.geneval.metadata import RELATIONS, metadata_line
from maskrl.geneval.wording import counted, with_article
from maskrl.interfaces import PromptSet
from maskrl.types import Prompt

SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
_SEED, _DRAWS = 43, 100  # draws per task, before what was drawn twice is dropped
_COLORED = CLASSES[1:]  # a person never has a colour

_Rng = np.random.Generator


OFFICIAL_IMAGES = 553 * 4  # of each prompt four


class GenEvalPrompts(PromptSet):
    """The official prompts: 80 to 100 in each of the six tasks."""

    def prompts(self) -> list[Prompt]:
        """Return 553 prompts in the official order; ``metadata`` is GenEval's.

        Raises:
            TrainingError: they are not the official ones, because numpy's generator has changed.
        """
        rng = np.random.default_rng(_SEED)
        singles = [_single_object(CLASSES[i]) for i in rng.choice(len(CLASSES), len(CLASSES), replace=False)]
        draw: Sequence[Callable[[_Rng], Prompt]]
        draw = (_two_object, _counting, _colors, _position, _color_attr)
        drawn = singles + [one(rng) for one in draw for _ in range(_DRAWS)]
        found = list({metadata_line(prompt): prompt for prompt in drawn}.values())
        check_official(found)
        return found


def label(of_detector: str, prompts: Sequence[Prompt], images_per_prompt: int) -> str:
    """Return what numbers may be called: "GenEval" are those of the official detector, prompts and four images each."""
    if of_detector != "GenEval" or (images_per_prompt == 4 and are_official(prompts)):
        return of_detector
    return f"GenEval detector, {len(prompts)} prompts with {images_per_prompt} images"


def are_official(prompts: Sequence[Prompt]) -> bool:
    """Tell whether prompts are the official ones, in any order."""
    try:
        official = GenEvalPrompts(GenEvalPrompts.Config()).prompts()
    except TrainingError:  # this numpy draws others: the published file is none that we can tell
        return False
    return _lines(prompts) == _lines(official)


def _lines(prompts: Sequence[Prompt]) -> list[str]:
    return sorted(json.dumps([prompt.text, dict(prompt.metadata)], sort_keys=True) for prompt in prompts)


def check_official(prompts: Sequence[Prompt]) -> None:
    """Refuse anything but the official prompts in the official order.

    Raises:
        TrainingError: written as metadata lines, they have another sha256 than the published file.
    """
    text = "".join(metadata_line(prompt) + "\n" for prompt in prompts)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != SHA256:
        raise TrainingError(
            f"numpy {np.__version__} draws other prompts than GenEval's (sha256 {digest[:12]}..., not"
            f" {SHA256[:12]}...); use another numpy, or the published evaluation_metadata.jsonl as prompt file"
        )


# What each function draws, in which order and by which call, is part of the prompts.
def _pick(items: Sequence[str], rng: _Rng) -> str:
    return items[rng.choice(len(items))]


def _pick_two(items: Sequence[str], rng: _Rng) -> tuple[str, str]:
    first, second = rng.choice(len(items), 2, replace=False)
    return items[first], items[second]


def _prompt(tag: str, words: str, *include: dict[str, Any], **more: Any) -> Prompt:
    return Prompt(f"a photo of {words}", {"tag": tag, "include": list(include), **more})


def _clause(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


def _single_object(name: str) -> Prompt:
    return _prompt("single_object", with_article(name), _clause(name))


def _two_object(rng: _Rng) -> Prompt:
    a, b = _pick_two(CLASSES, rng)
    return _prompt("two_object", f"{with_article(a)} and {with_article(b)}", _clause(a), _clause(b))


def _counting(rng: _Rng) -> Prompt:
    name, number = _pick(CLASSES, rng), int(rng.integers(2, 5))
    too_many = [_clause(name, number + 1)]
    return _prompt("counting", counted(number, name), _clause(name, number), exclude=too_many)


def _colors(rng: _Rng) -> Prompt:
    name, color = _pick(_COLORED, rng), _pick(COLORS, rng)
    return _prompt("colors", f"{with_article(color)} {name}", _clause(name, color=color))


def _position(rng: _Rng) -> Prompt:
    (subject, reference), relation = _pick_two(CLASSES, rng), _pick(RELATIONS, rng)
    words = f"{with_article(subject)} {relation} {with_article(reference)}"
    return _prompt("position", words, _clause(reference), _clause(subject, position=[relation, 0]))


def _color_attr(rng: _Rng) -> Prompt:
    (a, b), (color_a, color_b) = _pick_two(_COLORED, rng), _pick_two(COLORS, rng)
    words = f"{with_article(color_a)} {a} and {with_article(color_b)} {b}"
    return _prompt("color_attr", words, _clause(a, color=color_a), _clause(b, color=color_b))
