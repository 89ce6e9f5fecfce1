"""Does the judge see, and does it answer? What everybody knows is asked of it before it judges anything."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.errors import TrainingError
from maskrl_dpg.judges import Judge
from maskrl_dpg.scoring import YES

COLORS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 0.6, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
}
SIDE = 384  # pixels of a plain picture


def ask_the_obvious(judge: Judge) -> None:
    """Show plain pictures, each of one colour, and ask of every colour whether the picture has it.

    A judge that always says the same, does not see, or says "Yes." for "yes" fails.

    Raises:
        TrainingError: an answer is wrong; the message has the first.
    """
    questions = [f"is the picture {color}?" for color in COLORS]
    for shown, value in COLORS.items():
        answers = judge.answer(plain(value), questions)
        for color, question, answer in zip(COLORS, questions, answers, strict=True):
            expected = YES if color == shown else "no"
            if answer != expected:
                raise TrainingError(
                    f"the judge fails its self-test, so no score is told: of a plain {shown} picture it was asked"
                    f" {question!r} and answered {answer!r}, not {expected!r}"
                )


def plain(color: tuple[float, float, float], side: int = SIDE) -> Tensor:
    """Return a picture of one colour, Float [3, side, side]."""
    return torch.tensor(color)[:, None, None].expand(3, side, side).clone()
