"""The mean of a reward over images, and the names of two of them that are published so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.component import Chosen, ComponentConfig, named, open_path
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.reward_scorer import check_finite
from maskrl.identity import identity
from maskrl.interfaces import ImageEvaluation, Published, RewardModel, Row
from maskrl.rewards.clip import Clip
from maskrl.rewards.image_reward import ImageReward
from maskrl.rewards.image_reward_checkpoint import PUBLISHED as PUBLISHED_WEIGHTS
from maskrl.types import Prompt


class _Scored(ImageEvaluation):
    """What is a mean of a reward's scores; ``reward`` is who scores."""

    reward: RewardModel

    def settings(self) -> Mapping[str, Any]:
        """Name the reward, by its contents."""
        return {"reward": identity(self.reward)}

    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[Row]:
        """Score every image."""
        scores = score_each(self.reward, images, prompts)
        return [
            {"prompt": prompt.text, "score": score} for prompt, score in zip(prompts, scores, strict=True)
        ]

    @classmethod
    def values(cls, row: Row) -> dict[str, float]:
        """Return the score."""
        return {"mean": row["score"]}


class MeanReward(_Scored):
    """Average any reward over the images: the recipe's own, or another."""

    class Config(ComponentConfig):
        """``reward`` is averaged: its name, or a section with its settings; left out, the recipe's."""

        reward: Annotated[Chosen[RewardModel], *named("rewards")] | None = None

    takes = ("reward",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.reward is None:
            raise RecipeError(
                "say which reward to average: --reward NAME, or --recipe R, whose own it is then"
            )
        self.reward = config.reward.build()
        self.modules = self.reward.modules

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Ask the reward whether the prompts will do."""
        with asking(self.reward):
            self.reward.check(prompts)

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Name the reward's class."""
        return f"Reward {type(self.reward).__name__}"


class ClipScore(_Scored):
    """Average 100 x cosine between images and their prompts; the CLIP is named beside the number."""

    class Config(Clip.Config):
        """Which CLIP, as the reward ``clip`` has it."""

    paths = Clip.paths

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.reward = Clip(config)
        self.modules = self.reward.modules

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Name the CLIP."""
        model = self.config.model
        name = _folder_name(model) or f"{model} {self.config.pretrained}"
        return f"CLIP score, 100 x cosine ({name})"


class ImageRewardScore(_Scored):
    """Average ImageReward over the images; weights that are not the published ones are named beside the number."""

    class Config(ImageReward.Config):
        """Which weights, as the reward ``image_reward`` has them."""

    paths = ImageReward.paths

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.reward = ImageReward(config)
        self.modules = self.reward.modules

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Return "ImageReward" for the published weights alone."""
        return name_weights(self.config.weights)

    @classmethod
    def published(cls, label: str, images: int) -> Sequence[Published]:
        """Return what the paper says. Source: Mask-GRPO (arXiv 2510.13418), table 4."""
        if label != "ImageReward":
            return ()
        return (Published("Show-o", {"mean": 1.02}), Published("Show-o + Mask-GRPO", {"mean": 1.23}))


def name_weights(weights: str) -> str:
    """Return what a mean of ImageReward may be called."""
    if weights == PUBLISHED_WEIGHTS:
        return "ImageReward"
    return f"ImageReward-other ({_folder_name(weights) or weights})"


def _folder_name(source: str) -> str | None:
    """Return the name of a folder, ``package:...`` too; None for what is no folder: a tag, a hub id."""
    folder = Path(open_path(source))
    return folder.resolve().name if folder.is_dir() else None


def score_each(reward: RewardModel, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> list[float]:
    """Score K images, each Float [3, H, W] in [0, 1], with a prompt each; those of one size at a time.

    Raises:
        TrainingError: a score is not finite.
        PluginError: a score is no number.
    """
    score: dict[int, float] = {}
    for places in _by_size(images):
        asked = [prompts[i] for i in places]
        found = answers.score(reward, torch.stack([images[i] for i in places]), asked)
        check_finite(type(reward).__name__, found, asked, "evaluation")
        score |= dict(zip(places, found.tolist(), strict=True))
    return [score[i] for i in range(len(images))]


def _by_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Group the places of images of one size: a reward takes them together."""
    sizes = sorted({tuple(image.shape) for image in images})
    return [[i for i, image in enumerate(images) if tuple(image.shape) == size] for size in sizes]
