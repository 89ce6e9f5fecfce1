"""From answers to a score: a question counts if it and those that it presumes are answered "yes".

Source: dpg_bench/compute_dpg_bench.py of TencentQQGYLab/ELLA at 3c228f1, restated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from maskrl_dpg.questions import Question

YES = "yes"  # and nothing else: "yes, it is" is wrong there too


def score(questions: Mapping[int, Question], answers: Mapping[int, str]) -> float:
    """Return the share of questions that count, in [0, 1], of one picture.

    They are gone through in their order: a question loses its point if one of its parents has none by then.
    """
    points = {number: float(answers[number] == YES) for number in questions}
    for number, question in questions.items():
        if any(points[parent] == 0 for parent in question.parents):
            points[number] = 0.0
    return sum(points.values()) / len(points)


def by_topic(questions: Mapping[int, Question], answers: Mapping[int, str]) -> dict[str, list[int]]:
    """Count the questions of each topic that are answered "yes", whatever their parents are, and all of them."""
    asked = Counter(question.topic for question in questions.values())
    right = Counter(question.topic for number, question in questions.items() if answers[number] == YES)
    return {topic: [right[topic], asked[topic]] for topic in asked}
