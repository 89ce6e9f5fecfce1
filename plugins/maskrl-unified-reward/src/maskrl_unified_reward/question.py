"""What is asked about a picture, and how the score is read from the answer.

The wording is that of CodeGoat24/UnifiedReward at ff6f520 (MIT, Copyright (c) 2025 Yibin Wang), letter by letter: other
words could have other scores.
"""

from __future__ import annotations

import re
from typing import Any

from maskrl.errors import TrainingError, quote

QUESTION = (
    "You are given a text caption and a generated image based on that caption. Your task is to evaluate"
    " this image based on two key criteria:\n"
    "1. Alignment with the Caption: Assess how well this image aligns with the provided caption."
    " Consider the accuracy of depicted objects, their relationships, and attributes as described in"
    " the caption.\n"
    "2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail"
    " preservation, color accuracy, and overall aesthetic appeal.\n"
    "Extract key elements from the provided text caption, evaluate their presence in the generated"
    " image using the format: 'element (type): value' (where value=0 means not generated, and value=1"
    " means generated), and assign a score from 1 to 5 after 'Final Score:'.\n"
    "Your task is provided as follows:\n"
    "Text Caption: [{prompt}]"
)
LABEL = "Final Score:"
LOWEST, HIGHEST = 1, 5
LONGEST_ANSWER = 512  # tokens, as in the published code
SHOWN = 200  # letters of an answer that a message quotes: the last ones, where the score should be
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def ask(processor: Any, prompt: str) -> str:
    """Put the question about one picture into the words of the chat that the network was trained with."""
    content = [{"type": "image"}, {"type": "text", "text": QUESTION.format(prompt=prompt)}]
    chat = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def read_score(answer: str | None, prompt: str) -> float:
    """Read the score, which stands once, alone in its line and in [1, 5], behind ``Final Score:``.

    Args:
        answer: None if it was not brought to an end: half a number is another number.
        prompt: for the message.

    Raises:
        TrainingError: there is no such score, or more than one.
    """
    if answer is None:
        raise _refused(prompt, f"its answer has no end within {LONGEST_ANSWER} tokens")
    _, *behind = answer.split(LABEL)
    lines = behind[0].split("\n") if len(behind) == 1 else []
    number = next((line.strip() for line in lines if line.strip()), "")
    if not _NUMBER.fullmatch(number) or not LOWEST <= float(number) <= HIGHEST:
        shown = answer if len(answer) <= SHOWN else "…" + answer[-SHOWN:]
        raise _refused(prompt, f"it answered {shown!r}")
    return float(number)


def _refused(prompt: str, why: str) -> TrainingError:
    wanted = f"{LABEL!r} and a number from {LOWEST} to {HIGHEST}, once"
    return TrainingError(
        f"UnifiedReward has no score of a picture for {quote(prompt)}, which is {wanted}: {why}"
    )
