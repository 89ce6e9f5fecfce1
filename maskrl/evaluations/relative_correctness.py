"""Relative correctness of a reward: a detector says which images are right, the reward scores what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from maskrl.asking import asking
from maskrl.component import Chosen, ComponentConfig, named
from maskrl.errors import RecipeError, TrainingError
from maskrl.evaluations.caption_margins import (
    CaptionMargins,
    CaptionRow,
    Margin,
    captions,
    exchange,
    has_captions,
    rank_groups,
    summarise,
)
from maskrl.evaluations.geneval import judge_image, judged_by
from maskrl.evaluations.scores import score_each
from maskrl.geneval.metadata import asked_number, check_prompts
from maskrl.identity import identity
from maskrl.interfaces import Detector, ImageEvaluation, Number, RewardModel, Row
from maskrl.types import Prompt, Stream

OTHERS = ("wins_over_half", "wins_over_double", "top", "auc")
HEADINGS = ("", "images", "N/2", "N", "2N", "N above N/2", "wins", "N above 2N", "wins", "above both")


class RelativeCorrectness(ImageEvaluation):
    """Ask a reward whether it prefers the right number to half and double of it, on images that show the right one.

    Of the prompts, those are used that ask for 2, 4, 6, 8 or 10 objects of one class, without a colour.
    """

    class Config(ComponentConfig):
        """What is asked and who says what is right.

        ``reward`` is asked: its name, or a section; left out, the recipe's. ``detector`` says which images are right.
        ``seed`` is of the control and of the intervals; left out, the recipe's.
        """

        reward: Annotated[Chosen[RewardModel], *named("rewards")] | None = None
        detector: Annotated[Chosen[Detector], *named("detectors")] = Field(
            default="shapes", validate_default=True
        )
        seed: int = Field(default=0, ge=0)

    takes = ("reward", "seed")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.reward is None:
            raise RecipeError("say which reward to ask: --reward NAME, or --recipe R, whose own it is then")
        self.reward: RewardModel = config.reward.build()
        self.detector: Detector = config.detector.build()
        self.modules = (*self.reward.modules, *self.detector.modules)
        self._stream = Stream(config.seed).child("relative_correctness")

    @classmethod
    def wants(cls, prompt: Prompt) -> bool:
        """Tell whether metadata ask for nothing but a number of one class, which has a half and a double."""
        asked = asked_number(prompt)
        return asked is not None and has_captions(asked[1])

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that prompts can be judged, and ask for two classes; and that the detector works.

        Raises:
            RecipeError: a prompt cannot be judged, or all ask for one class.
            TrainingError: the detector fails its self-test.
        """
        check_prompts(prompts, self.detector)
        exchange([_asked(prompt)[0] for prompt in prompts], Stream(0))
        with asking(self.detector):
            self.detector.self_test()

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Name the reward's class."""
        return f"Relative correctness of {type(self.reward).__name__}"

    def settings(self) -> Mapping[str, Any]:
        """Name the rules, detector, reward, and the seed of the control."""
        rules = judged_by(self.detector)
        return {**rules, "reward": identity(self.reward), "control_seed": self._stream.seed}

    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Row]:
        """Judge every image, and score its prompt; where it is right, its three captions too."""
        right = [
            judge_image(image, prompt, self.detector, "").correct
            for image, prompt in zip(images, prompts, strict=True)
        ]
        scores = score_each(self.reward, images, prompts)
        rows = [
            {"prompt": prompt.text, "number": _asked(prompt)[1], "correct": correct, "score": score}
            for prompt, correct, score in zip(prompts, right, scores, strict=True)
        ]
        return self._with_captions("captions", rows, images, prompts)

    def companions(self, prompts: Sequence[Prompt]) -> list[int]:
        """Draw for every image another one, of another class: the control."""
        return exchange([_asked(prompt)[0] for prompt in prompts], self._stream.child("control"))

    def judge_beside(
        self, rows: Sequence[Row], prompts: Sequence[Prompt], companions: Sequence[Tensor]
    ) -> list[Row]:
        """Score the captions of right images on the control: what the text does alone."""
        return self._with_captions("captions_on_control", rows, companions, prompts)

    def _with_captions(
        self, key: str, rows: Sequence[Row], images: Sequence[Tensor], prompts: Sequence[Prompt]
    ) -> list[Row]:
        right = [i for i, row in enumerate(rows) if row["correct"]]
        said = [Prompt(text) for i in right for text in captions(*_asked(prompts[i]))]
        scores = iter(score_each(self.reward, [images[i] for i in right for _ in range(3)], said))
        return [{**row, key: [next(scores) for _ in range(3)] if row["correct"] else None} for row in rows]

    @classmethod
    def values(cls, row: Row) -> dict[str, float]:
        """Return the scores of a right image's captions, and their margins on it and on the control."""
        if not row["correct"]:
            return {}
        half, same, double = row["captions"]
        values = {"half": half, "same": same, "double": double}
        own, control = (_margins(row[key]) for key in ("captions", "captions_on_control"))
        for name in own:
            values |= {name: own[name], f"control_{name}": control[name]}
            values[f"beyond_text_{name}"] = own[name] - control[name]
        return values

    @classmethod
    def combine(cls, means: Mapping[str, Number]) -> dict[str, Number]:
        """Put the margins first."""
        kinds = ("", "control_", "beyond_text_")
        margins = [f"{kind}over_{other}" for kind in kinds for other in ("half", "double")]
        return {name: means[name] for name in (*margins, "half", "same", "double")}

    def others(self, rows: Sequence[Row]) -> dict[str, float]:
        """Return how often the right caption wins, and the ranking within groups."""
        report = self._report(rows)
        pooled = report.pooled
        wins = (pooled.over_half.wins, pooled.over_double.wins, pooled.top, report.ranking.auc)
        return dict(zip(OTHERS, wins, strict=True))

    def details(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return intervals, and the means of each number."""
        report = self._report(rows)
        return {**asdict(report), "holds": report.holds}

    def notes(self, rows: Sequence[Row], images: int) -> list[str]:
        """Return the ranking, and the verdict."""
        report = self._report(rows)
        ranking, verdict = report.ranking, "holds" if report.holds else "is not shown"
        return [
            f"right above wrong within a group: {ranking.auc:.3f} [{ranking.low:.3f}, {ranking.high:.3f}],"
            f" {ranking.pairs} pairs in {ranking.groups} groups",
            f"relative correctness {verdict}: both margins above 0 with their intervals, and ranking above 0.5",
        ]

    def table(self, rows: Sequence[Row]) -> list[Sequence[str]]:
        """Return a line for each number, for all, for the control, and for what the control leaves."""
        report = self._report(rows)
        lines = {f"N = {number}": row for number, row in report.numbers.items()}
        lines |= {"all": report.pooled, "other classes": report.control, "difference": report.beyond_text}
        return [HEADINGS, *((name, *_cells(row)) for name, row in lines.items())]

    def _report(self, rows: Sequence[Row]) -> CaptionMargins:
        if any("number" not in row for row in rows):
            raise TrainingError(
                "an earlier maskrl left some of these rows; delete the folder 'unfinished' beside the results,"
                " and they are judged again"
            )
        groups = [row["filename"].partition("/")[0] for row in rows]
        right = [row for row in rows if row["correct"]]
        if not right:
            raise TrainingError(
                f"none of {len(rows)} images shows the number that its prompt asks for: there is nothing to score"
            )
        ranking = rank_groups(
            torch.tensor([row["score"] for row in rows]),
            torch.tensor([row["correct"] for row in rows]),
            groups,
            self._stream,
        )
        return summarise(
            torch.tensor([row["captions"] for row in right]),
            torch.tensor([row["captions_on_control"] for row in right]),
            [row["number"] for row in right],
            [row["filename"].partition("/")[0] for row in right],
            ranking,
            self._stream,
        )


def _asked(prompt: Prompt) -> tuple[str, int]:
    asked = asked_number(prompt)
    assert asked is not None, f"{prompt.text!r} asks for no number"
    return asked


def _margins(captions: Sequence[float]) -> dict[str, float]:
    half, same, double = captions
    return {"over_half": same - half, "over_double": same - double}


def _cells(row: CaptionRow) -> list[str]:
    means = [f"{mean.value:.3f}" for mean in (row.half, row.same, row.double)]
    half, double = _margin(row.over_half), _margin(row.over_double)
    return [str(row.images), *means, *half, *double, f"{row.top:.0%}"]


def _margin(margin: Margin) -> tuple[str, str]:
    return f"{margin.mean:+.3f} [{margin.low:+.3f}, {margin.high:+.3f}]", f"{margin.wins:.0%}"
