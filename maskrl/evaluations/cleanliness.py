"""Cleanliness: are pictures of the shapes world well painted, and do they show what was asked and nothing else?

GenEval counts "at least", and forgives a smeared edge, a stray half shape and a colour in between. This sees them. It
is an evaluation and no reward: what judges never trains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from maskrl.asking import asking
from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.evaluations.geneval import judged_by
from maskrl.evaluations.numbers import average, numbers, written
from maskrl.geneval.credit import credit
from maskrl.geneval.metadata import TASKS, check_prompts, read_metadata
from maskrl.geneval.scoring import judge, select
from maskrl.interfaces import ImageEvaluation, Number, Row
from maskrl.pixels import to_bytes
from maskrl.shapes.cleanliness import AVERAGED, ELSEWHERE, IN_THINGS, LIKENESS, look
from maskrl.shapes.detector import ShapesDetector
from maskrl.shapes.prompts import ShapesGenEval
from maskrl.shapes.world import IMAGE_SIZE
from maskrl.types import Prompt

MEASURES = ("clean", "strict", "clean_and_strict", "geneval")
HEADINGS = ("", "clean", "strict", "clean and strict", "GenEval-shapes")


class Cleanliness(ImageEvaluation):
    """Share of pictures of the shapes world that are clean, and of those that show exactly what was asked.

    Of every task and overall: ``clean``, every object is one of the shapes in one of the colours, and nothing else is
    painted; ``strict``, the detector finds exactly the objects that were asked for, and none besides; both; and
    ``geneval``, the official rule, which wants "at least" as many.
    """

    def __init__(self, config: ComponentConfig) -> None:
        super().__init__(config)
        self.detector = ShapesDetector(ComponentConfig())

    @classmethod
    def prompts(cls) -> Sequence[Prompt]:
        """Return GenEval's prompts in the shapes world."""
        return ShapesGenEval(ComponentConfig()).prompts()

    @classmethod
    def task(cls, prompt: Prompt) -> str:
        """Name the prompt's task."""
        return str(prompt.metadata.get("tag", ""))

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that prompts have GenEval's metadata and ask for shapes, and that the detector works; not all tasks.

        Raises:
            RecipeError: a prompt cannot be judged.
            TrainingError: the detector fails its self-test.
        """
        check_prompts(prompts, self.detector)
        with asking(self.detector):
            self.detector.self_test()

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Say of which world."""
        return "Cleanliness in the shapes world"

    def settings(self) -> Mapping[str, Any]:
        """Name the limits, GenEval's rules and the detector."""
        limits = {"likeness": LIKENESS, "in_things": IN_THINGS, "elsewhere": ELSEWHERE, "averaged": AVERAGED}
        return {**judged_by(self.detector), "cleanliness": limits}

    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Row]:
        """Judge every picture; ``things`` and ``fault`` say what was seen.

        Raises:
            RecipeError: a picture has another size than the world's.
        """
        return [self._judge(image, prompt) for image, prompt in zip(images, prompts, strict=True)]

    def _judge(self, image: Tensor, prompt: Prompt) -> Row:
        if tuple(image.shape[1:]) != (IMAGE_SIZE, IMAGE_SIZE):
            height, width = image.shape[1:]
            raise RecipeError(
                f"cleanliness is of pictures of the shapes world, {IMAGE_SIZE} x {IMAGE_SIZE} pixels; one of"
                f" {prompt.text!r} has {width} x {height}: leave this evaluation out"
            )
        seen, metadata = look(to_bytes(image)), read_metadata(prompt)
        strict, official = self._count(image, metadata)
        return {
            "tag": metadata["tag"],
            "prompt": prompt.text,
            "clean": not seen.fault,
            "strict": strict,
            "geneval": official,
            "things": [
                f"{thing.color} {thing.shape} ({thing.x:.0f}, {thing.y:.0f})" for thing in seen.things
            ],
            "fault": seen.fault,
        }

    def _count(self, image: Tensor, metadata: Mapping[str, Any]) -> tuple[bool, bool]:
        """Tell whether exactly what is asked for is there, and whether at least that is."""
        found = self.detector.detect(image)
        objects, color = select(found, metadata["tag"]), self.detector.color
        is_met, _ = credit(image, objects, metadata, color)
        asked = sum(clause["count"] for clause in metadata["include"])
        is_alone = sum(map(len, found.values())) == asked  # what no shape is like is an object too
        return is_met and is_alone, judge(image, objects, metadata, color)[0]

    @classmethod
    def values(cls, row: Row) -> dict[str, float]:
        """Count an image for its task, by each measure."""
        told = {**row, "clean_and_strict": row["clean"] and row["strict"]}
        return {f"{measure}_{row['tag']}": float(told[measure]) for measure in MEASURES}

    @classmethod
    def combine(cls, means: Mapping[str, Number]) -> dict[str, Number]:
        """Average the tasks that there are, unweighted, as GenEval does; then each task."""
        tasks = [task for task in TASKS if f"clean_{task}" in means]
        overall = {measure: average([means[f"{measure}_{task}"] for task in tasks]) for measure in MEASURES}
        names = (f"{measure}_{task}" for measure in MEASURES for task in tasks)
        return {**overall, **{name: means[name] for name in names}}

    def table(self, rows: Sequence[Row]) -> list[Sequence[str]]:
        """Return a line for all tasks together and for each."""
        found = numbers(self, rows)
        tasks = [task for task in TASKS if f"clean_{task}" in found]
        lines = {"overall": MEASURES} | {task: tuple(f"{m}_{task}" for m in MEASURES) for task in tasks}
        return [HEADINGS, *((name, *(written(found[key]) for key in keys)) for name, keys in lines.items())]
