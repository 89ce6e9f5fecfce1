"""A mix of rewards: each brought to a common scale, weighted, and added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from maskrl.asking import asking
from maskrl.component import Chosen, ComponentConfig, Label, named
from maskrl.grpo import answers
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt


class Term(ComponentConfig):
    """One reward of a mix: it adds ``weight * (score - mean) / std``.

    ``reward`` is a reward's name, or a section with its settings. ``mean`` and ``std`` are what its scores usually are,
    so that weights compare; metrics.jsonl has those of a run.
    """

    reward: Annotated[Chosen[RewardModel], *named("rewards")]
    weight: float = Field(default=1.0, allow_inf_nan=False)
    mean: float = Field(default=0.0, allow_inf_nan=False)
    std: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class WeightedSum(RewardModel):
    """The sum over terms of ``weight * (score - mean) / std``.

    An image's score depends on no other image: nothing is normalised by what else is in a batch.
    """

    class Config(ComponentConfig):
        """The terms, by the names they have in the metrics."""

        terms: dict[Label, Term] = Field(min_length=1)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._rewards = {label: term.reward.build() for label, term in config.terms.items()}
        self.modules: tuple[nn.Module, ...] = tuple(
            module for reward in self._rewards.values() for module in reward.modules
        )

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; all terms together."""
        costs = [answers.cost(term.reward.component, term.reward.config) for term in config.terms.values()]
        return sum(parameters for parameters, _ in costs), sum(flops for _, flops in costs)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Every term looks at the prompts."""
        for reward in self._rewards.values():
            with asking(reward):
                reward.check(prompts)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B]."""
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and the score of each term, before ``mean``, ``std`` and ``weight``: Float [B] each."""
        total_B, terms = torch.zeros(len(prompts), dtype=torch.float32, device=images.device), {}
        for label, reward in self._rewards.items():
            term = self.config.terms[label]
            terms[label] = answers.score(reward, images, prompts)
            total_B += term.weight * (terms[label] - term.mean) / term.std
        return total_B, terms

    def term_weights(self) -> Mapping[str, float]:
        """The weights; ``mean`` and ``std`` do not matter to a term that is standardised."""
        return {label: term.weight for label, term in self.config.terms.items()}
