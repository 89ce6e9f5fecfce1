"""Rewards that watch and never teach: when the trained one rises and these fall, it is being hacked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo.batch import Batch
from maskrl.grpo.processes import Process
from maskrl.grpo.reward_scorer import RewardScorer, check_finite
from maskrl.interfaces import RewardModel

AGREEMENT = "_agreement"


@dataclass(frozen=True)
class HeldOutRewards:
    """Scores the images of every ``every``-th update by held-out rewards, ``batch`` images at a time."""

    rewards: Mapping[str, RewardModel]
    every: int
    batch: int
    process: Process

    def __post_init__(self) -> None:
        for name in self.rewards:
            if name.endswith(AGREEMENT) and name.removesuffix(AGREEMENT) in self.rewards:
                raise RecipeError(
                    f"watch.rewards: {name!r} is what the agreement of another is called; rename it"
                )

    def score_if_due(self, batch: Batch) -> dict[str, float]:
        """Return ``held_out_NAME`` and ``held_out_NAME_agreement``, over all processes; nothing where it is not time.

        The first is the mean score. The second, in [-1, 1], is the mean over groups of the correlation with the trained
        reward; it is left out where one of the two never varies.

        Raises:
            TrainingError: a score is not finite.
        """
        if (batch.update + 1) % self.every:
            return {}
        metrics = {}
        for name, reward in self.rewards.items():
            scores_PG = self.process.gather(self._score(name, reward, batch).view_as(batch.rewards)).cpu()
            metrics[f"held_out_{name}"] = float(scores_PG.mean())
            agreement = mean_correlation(scores_PG, self._trained(batch))
            if agreement is not None:
                metrics[f"held_out_{name}{AGREEMENT}"] = agreement
        return metrics

    def _score(self, name: str, reward: RewardModel, batch: Batch) -> Tensor:
        size = len(batch.images) // len(batch.prompts)
        prompts = [prompt for prompt in batch.prompts for _ in range(size)]
        scorer = RewardScorer(reward, prompts, self.batch, overlap=False)
        scorer.add(batch.images)
        scores_B, _ = scorer.scores()
        check_finite(name, scores_B, prompts, f"update {batch.update}, held out")
        return scores_B.to(batch.images.device)

    def _trained(self, batch: Batch) -> Tensor:
        return self.process.gather(batch.rewards.to(batch.images.device)).cpu()


def mean_correlation(first: Tensor, second: Tensor) -> float | None:
    """Average over groups the correlation of two scores: Float [P, G] twice -> in [-1, 1].

    Groups in which one of them does not vary are left out; None if all are.
    """
    products = []
    for first_G, second_G in zip(first.double(), second.double(), strict=True):
        a, b = first_G - first_G.mean(), second_G - second_G.mean()
        scale = a.norm() * b.norm()
        if scale > 0:
            products.append((a @ b) / scale)
    return float(torch.stack(products).mean()) if products else None
