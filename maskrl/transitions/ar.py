"""``ar``: the product over every proposal, as in language models."""

from __future__ import annotations

from torch import Tensor

from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition


class Ar(TransitionProb):
    """Sum log p of the proposals at all masked positions. Source: eq. 13."""

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        return transition.sum_rows(pick(log_softmax(logits), transition.pack(transition.proposals)))
