"""``p_theta2``: the product over the revealed positions alone."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition


class PTheta2(TransitionProb):
    """Sum log p of the proposals at the revealed positions. Source: eq. 15."""

    needs_remasked = False

    class Config(ComponentConfig):
        """What the sum is scaled by; scaled, it is no probability of the transition.

        - ``normalize`` = "mean" divides by n_t: the log of a geometric mean.
        - ``order_from``: where tau is at least this and something is remasked, the sum counts 1 + 1/tau times: about
          what the order of revealing adds, where few of many positions are revealed under much noise; 0.5 is the lowest
          tau at which the two were found alike. None: nowhere.
        """

        normalize: Literal["sum", "mean"] = "sum"
        order_from: float | None = Field(default=None, gt=0)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.needs_log_prob = config.order_from is not None  # 1 + 1/tau is of the noise on log p

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        logp_M = pick(log_softmax(logits), transition.pack(transition.proposals))
        logp_B = transition.sum_rows(logp_M.masked_fill(~transition.pack(transition.revealed), 0.0))
        if self.config.normalize == "mean":
            logp_B = logp_B / transition.revealed.sum(dim=1)
        return logp_B if self.config.order_from is None else logp_B * self._factor(transition).to(logp_B)

    def _factor(self, transition: Transition) -> Tensor:
        """Float [B], fp64: what the sum counts at the step of each row. Source: measured, docs/equations.md."""
        tau_B = transition.tau.double()
        counts_B = (tau_B >= self.config.order_from) & transition.remasked.any(dim=1)
        return torch.where(counts_B, 1 + 1 / tau_B, 1.0)
