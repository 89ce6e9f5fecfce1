"""``ar``: the product over every proposal, as in language models."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition


class Ar(TransitionProb):
    """Sum log p of the proposals at all masked positions. Source: eq. 13."""

    class Config(ComponentConfig):
        """``normalize`` = "mean" divides by M_t: the log of a geometric mean, no probability of the transition."""

        normalize: Literal["sum", "mean"] = "sum"

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        logp_B = transition.sum_rows(pick(log_softmax(logits), transition.pack(transition.proposals)))
        return logp_B / transition.masked.sum(dim=1) if self.config.normalize == "mean" else logp_B
