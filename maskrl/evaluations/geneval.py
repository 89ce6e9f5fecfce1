"""GenEval: detect, judge by the official rules; the mean over the six tasks is the headline.

The detector is a part that is swapped, so numbers are GenEval's only with the official detector and prompts: the
settings in every result name both, and the label says what the detector makes of the numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from maskrl.asking import asking
from maskrl.component import Chosen, ComponentConfig, named
from maskrl.evaluations.numbers import average
from maskrl.geneval import answers
from maskrl.geneval.metadata import TASKS, check_prompts, metadata_line, read_metadata
from maskrl.geneval.official_prompts import OFFICIAL_IMAGES, label
from maskrl.geneval.record import Record, check_tasks, details
from maskrl.geneval.scoring import judge, select
from maskrl.identity import identity
from maskrl.interfaces import Detector, ImageEvaluation, Number, Published, Row
from maskrl.types import Prompt

PROTOCOL = "GenEval scoring rules of djghosh13/geneval af4902f"


class GenEvalBenchmark(ImageEvaluation):
    """Score by GenEval's rules: the share of right images in each of six tasks, and the mean over the tasks."""

    class Config(ComponentConfig):
        """``detector`` finds objects and names colours: its name, or a section with its settings."""

        detector: Annotated[Chosen[Detector], *named("detectors")] = Field(
            default="shapes", validate_default=True
        )

    images_per_prompt = 4  # the official number

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.detector: Detector = config.detector.build()
        self.modules = self.detector.modules

    @classmethod
    def task(cls, prompt: Prompt) -> str:
        """Name the prompt's task."""
        return str(prompt.metadata.get("tag", ""))

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that prompts have metadata that the detector knows, all six tasks among them, and that it works.

        Raises:
            RecipeError: a prompt cannot be judged.
            TrainingError: a task has no prompt, or the detector fails its self-test.
        """
        check_prompts(prompts, self.detector)
        check_tasks({prompt.metadata["tag"] for prompt in prompts})
        with asking(self.detector):
            self.detector.self_test()

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Return "GenEval" for the official detector, prompts and four images each."""
        return label(self.detector.label, prompts, images // len(prompts))

    def settings(self) -> Mapping[str, Any]:
        """Name the rules and the detector."""
        return judged_by(self.detector)

    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Row]:
        """Return the official rows."""
        return [
            asdict(judge_image(image, prompt, self.detector, ""))
            for image, prompt in zip(images, prompts, strict=True)
        ]

    @classmethod
    def values(cls, row: Row) -> dict[str, float]:
        """Count an image for its task."""
        return {row["tag"]: float(row["correct"])}

    @classmethod
    def combine(cls, means: Mapping[str, Number]) -> dict[str, Number]:
        """Average the six tasks, unweighted: the headline."""
        return {"overall": average([means[task] for task in TASKS]), **{task: means[task] for task in TASKS}}

    def others(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return the shares of right images and of prompts with any; ``metadata`` tells prompts apart, officially."""
        by_prompt: dict[str, list[bool]] = defaultdict(list)
        for row in rows:
            by_prompt[row["metadata"]].append(row["correct"])
        return {
            "correct_images": sum(row["correct"] for row in rows) / len(rows),
            "correct_prompts": sum(map(any, by_prompt.values())) / len(by_prompt),
        }

    @classmethod
    def is_right(cls, row: Row) -> bool:
        """Tell whether the image is correct."""
        return bool(row["correct"])

    @classmethod
    def published(cls, label: str, images: int) -> Sequence[Published]:
        """Return what the paper says: of all official prompts, four images each."""
        return PUBLISHED if (label, images) == ("GenEval", OFFICIAL_IMAGES) else ()


def _paper(name: str, *values: float) -> Published:
    return Published(name, dict(zip((*TASKS, "overall"), values, strict=True)))


# Source: Mask-GRPO (arXiv 2510.13418), tables 1 and 2.
PUBLISHED = (
    _paper("Show-o", 0.95, 0.52, 0.49, 0.82, 0.11, 0.28, 0.53),
    _paper("Show-o + Mask-GRPO", 0.99, 0.90, 0.69, 0.85, 0.35, 0.59, 0.73),
)


def judged_by(detector: Detector) -> dict[str, Any]:
    """Name the rules and who finds the objects."""
    return {"protocol": PROTOCOL, "detector": identity(detector)}


def judge_image(image: Tensor, prompt: Prompt, detector: Detector, filename: str) -> Record:
    """Detect and judge one image, Float [3, H, W] in [0, 1]."""
    metadata = read_metadata(prompt)
    tag = metadata["tag"]
    objects = select(answers.detect(detector, image), tag)
    correct, reason = judge(image, objects, metadata, partial(answers.color, detector))
    return Record(filename, tag, prompt.text, correct, reason, metadata_line(prompt), details(objects))
