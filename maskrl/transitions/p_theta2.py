"""``p_theta2``: the product over the revealed positions alone."""

from __future__ import annotations

from torch import Tensor

from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition


class PTheta2(TransitionProb):
    """Sum log p of the proposals at the revealed positions. Source: eq. 15."""

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        logp_M = pick(log_softmax(logits), transition.pack(transition.proposals))
        return transition.sum_rows(logp_M.masked_fill(~transition.pack(transition.revealed), 0.0))
