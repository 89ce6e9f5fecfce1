"""GenEval's records: a row per image, and the six tasks that there must be."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from maskrl.errors import TrainingError
from maskrl.geneval.metadata import TASKS
from maskrl.geneval.scoring import Objects


@dataclass(frozen=True)
class Record:
    """One judged image: a line of the official ``results.jsonl``, keys in the official order.

    ``filename`` is relative to the image folder; ``metadata`` and ``details`` are JSON texts.
    """

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str

    def line(self) -> str:
        """Return the JSON line, without its end."""
        return json.dumps(asdict(self))


def details(objects: Objects) -> str:
    """Return selected detections as the official JSON text: class -> [x1, y1, x2, y2, score] of each."""
    return json.dumps(
        {
            name: [[float(value) for value in (*found.box, found.score)] for found in kept]
            for name, kept in objects.items()
        }
    )


def check_tasks(tags: Collection[str]) -> None:
    """Refuse anything but the six tasks: a missing one would change the denominator of the overall score.

    Raises:
        TrainingError: a task has no image, or a tag is not a task.
    """
    missing = [task for task in TASKS if task not in tags]
    if missing:
        raise TrainingError(f"GenEval needs all six tasks; nothing is tagged {', '.join(map(repr, missing))}")
    unknown = sorted(set(tags) - set(TASKS))
    if unknown:
        raise TrainingError(f"GenEval has no task called {unknown[0]!r}; its tasks are {', '.join(TASKS)}")
