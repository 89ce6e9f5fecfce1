"""GenEval's records and numbers: a row per image, the six tasks, the overall score, their standard errors."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

from maskrl.errors import TrainingError
from maskrl.geneval.metadata import TASKS
from maskrl.geneval.scoring import Objects
from maskrl.interfaces import Detection


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


@dataclass(frozen=True)
class TaskScore:
    """The share of a task's images that are correct, in [0, 1].

    ``se`` is its standard error with the images of one prompt taken as one draw, NaN for a single prompt.
    """

    mean: float
    se: float
    prompts: int
    images: int


@dataclass(frozen=True)
class Summary:
    """The numbers of an evaluation; ``overall``, the headline, is the unweighted mean over the six tasks.

    ``correct_images`` is a share of images; ``correct_prompts`` the share of prompts with any correct image.
    """

    overall: float
    overall_se: float
    tasks: Mapping[str, TaskScore]
    images: int
    prompts: int
    correct_images: float
    correct_prompts: float


def details(objects: Objects) -> str:
    """Return selected detections as the official JSON text: class -> [x1, y1, x2, y2, score] of each."""
    return json.dumps({name: [_row(found) for found in kept] for name, kept in objects.items()})


def _row(found: Detection) -> list[float]:
    return [float(value) for value in (*found.box, found.score)]


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


def summarise(records: Sequence[Record]) -> Summary:
    """Average image -> task -> overall.

    Raises:
        TrainingError: a task is missing or unknown.
    """
    check_tasks({record.tag for record in records})
    by_task = {task: by_prompt([record for record in records if record.tag == task]) for task in TASKS}
    tasks = {task: _score(images) for task, images in by_task.items()}
    prompts = [images for task in by_task.values() for images in task.values()]
    return Summary(
        overall=sum(score.mean for score in tasks.values()) / len(TASKS),
        overall_se=math.sqrt(sum(score.se**2 for score in tasks.values())) / len(TASKS),
        tasks=tasks,
        images=len(records),
        prompts=len(prompts),
        correct_images=sum(record.correct for record in records) / len(records),
        correct_prompts=sum(any(images) for images in prompts) / len(prompts),
    )


def by_prompt(records: Sequence[Record]) -> dict[str, list[bool]]:
    """Gather ``correct`` of each prompt's images; ``metadata`` tells prompts apart, as officially."""
    gathered: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        gathered[record.metadata].append(record.correct)
    return dict(gathered)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of independent values; NaN for a single one."""
    number = len(values)
    if number < 2:
        return math.nan
    mean = sum(values) / number
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (number - 1) / number)


def influences(by_prompt: Sequence[Sequence[float]]) -> list[float]:
    """Return how far each prompt moves the mean over all images, to first order; the mean over the prompts is 0.

    Prompts are the independent draws, and may have different numbers of images, or none: the mean over images is then
    the ratio of two sums over prompts.
    """
    images = [value for values in by_prompt for value in values]
    mean = sum(images) / len(images)
    share = len(by_prompt) / len(images)
    return [share * sum(value - mean for value in values) for values in by_prompt]


def _score(images: Mapping[str, Sequence[bool]]) -> TaskScore:
    every = [correct for prompt in images.values() for correct in prompt]
    error = standard_error(influences(list(images.values())))
    return TaskScore(sum(every) / len(every), error, len(images), len(every))
