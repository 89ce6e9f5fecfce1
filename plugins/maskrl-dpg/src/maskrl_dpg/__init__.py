"""DPG-Bench: dense prompts, and questions about each, which a network answers.

Source: Hu et al. 2024 (arXiv 2403.05135) and TencentQQGYLab/ELLA at 3c228f1. How we differ: another network answers,
pictures are judged one by one and not as quarters of a sheet, all of them count for the topics (there the last), and
a picture that cannot be judged ends the evaluation (there it is left out).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError, quote
from maskrl.interfaces import ImageEvaluation, Row
from maskrl.types import Prompt
from maskrl_dpg.canary import ask_the_obvious
from maskrl_dpg.judges import load_judge
from maskrl_dpg.questions import NUMBER, read_items
from maskrl_dpg.scoring import by_topic, score

PUBLISHED_PROMPTS, PUBLISHED_IMAGES = 1065, 4


class DpgBench(ImageEvaluation):
    """Score by DPG-Bench's rules: the share of questions about a picture that are answered yes, and their parents' too.

    From 0 to 100; then of each topic the share that is answered yes, whatever the parents are.
    """

    class Config(ComponentConfig):
        """Who is asked what.

        ``questions`` is your copy of the benchmark's table, dpg_bench.csv; it is the file of ``prompts`` as well.
        ``judge`` is a BLIP for visual question answering: a hub id or a folder in transformers' layout.
        """

        questions: str
        judge: str = "Salesforce/blip-vqa-capfilt-large"

    paths = ("questions", "judge")
    images_per_prompt = PUBLISHED_IMAGES

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._items = read_items(config.questions)
        self._judge = load_judge(config.judge)
        self.modules = self._judge.modules

    @classmethod
    def wants(cls, prompt: Prompt) -> bool:
        """Take one row of each item: as prompts, the table of questions holds a text as often as it has questions."""
        return str(prompt.metadata.get(NUMBER, 1)).strip() == "1"

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that every prompt has questions, and that the judge knows plain colours.

        Raises:
            RecipeError: a prompt has no questions.
            TrainingError: the judge fails.
        """
        if unknown := [prompt.text for prompt in prompts if prompt.text not in self._items]:
            raise RecipeError(
                f"{self.config.questions!r} has no questions about {len(unknown)} of {len(prompts)} prompts,"
                f" {quote(unknown[0])} among them; the prompts are this file's: --prompts {self.config.questions}"
            )
        ask_the_obvious(self._judge)

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Name the judge: the published numbers are another's."""
        return f"DPG-other ({self.config.judge.rstrip('/').rpartition('/')[2]})"

    def notes(self, rows: Sequence[Row], images: int) -> list[str]:
        """Say what these numbers are not."""
        said = ["published scores are of another judge (mPLUG-large), and not comparable"]
        number = len({row["prompt"] for row in rows})
        if (number, images) != (PUBLISHED_PROMPTS, PUBLISHED_PROMPTS * PUBLISHED_IMAGES):
            published = f"{PUBLISHED_PROMPTS:,} prompts, {PUBLISHED_IMAGES} images each"
            said.append(f"of {number:,} prompts and {images:,} images; the whole benchmark has {published}")
        return said

    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Row]:
        """Ask all questions about every picture."""
        return [self._row(*pair) for pair in zip(images, prompts, strict=True)]

    def _row(self, image: Tensor, prompt: Prompt) -> dict[str, Any]:
        item = self._items[prompt.text]
        said = self._judge.answer(image, [question.text for question in item.questions.values()])
        answers = dict(zip(item.questions, said, strict=True))
        return {
            "item": item.name,
            "prompt": prompt.text,
            "score": score(item.questions, answers),
            "topics": by_topic(item.questions, answers),
            "answers": {str(number): answer for number, answer in answers.items()},
        }

    @classmethod
    def values(cls, row: Row) -> dict[str, float]:
        """Return the score in percent."""
        return {"dpg": 100 * row["score"]}

    def others(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return of each topic the share of its questions, over all pictures, that are answered yes, in percent."""
        right, asked = Counter[str](), Counter[str]()
        for row in rows:
            for topic, (yes, number) in row["topics"].items():
                right[topic] += yes
                asked[topic] += number
        return {topic: 100 * right[topic] / asked[topic] for topic in sorted(asked)}
