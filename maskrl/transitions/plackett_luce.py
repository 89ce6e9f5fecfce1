"""``plackett_luce``: the probability of all that a step drew, the proposals and the order of revealing."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition

NEVER = -1e30  # of a position that is no candidate: finite, so that no inf - inf appears on the way back


class PlackettLuce(TransitionProb):
    """``ar`` and the log-probability of the order of revealing, under Gumbel noise on log p.

    The n_t revealed positions are drawn one by one, without replacement, with weights ``p_i(y_i) ** (1 / tau)``; every
    draw is among all that are still masked, those that stay masked included. It sums to 1 over all proposals and
    orders, and its policy gradient has no bias, at a large variance. Where nothing is remasked the order decides
    nothing, and counts nothing.

    Source: equations in docs/equations.md, "Transition probabilities"; Plackett and Luce by Gumbel noise: Yellott 1977.
    """

    class Config(ComponentConfig):
        """The order counts where tau is at least ``tau_min``.

        Below, it is all but decided by the proposals, and 1e-3 of rounding in log p would move its log-probability by
        nats.
        """

        tau_min: float = Field(default=0.05, gt=0)

    needs_log_prob = True

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        logp_M = pick(log_softmax(logits), transition.pack(transition.proposals))
        tau_B = transition.tau.to(torch.float64)
        counts_B = (tau_B >= self.config.tau_min) & transition.remasked.any(dim=1)
        phi_BN = transition.unpack(logp_M.double()) / tau_B.clamp(min=self.config.tau_min)[:, None]
        order_B = torch.where(counts_B, order_log_prob(phi_BN, transition), 0.0)
        return transition.sum_rows(logp_M) + order_B.to(logp_M.dtype)


def order_log_prob(phi: Tensor, transition: Transition) -> Tensor:
    """Log-probability that the revealed come first, and in their order.

    Args:
        phi: Float [B, N], fp64, the log of each masked position's weight.
        transition: says which were revealed, and in which order.

    Returns:
        Float [B], nats, at most 0.
    """
    rank_BN, last = transition.reveal_rank, phi.shape[1]
    place_BN = rank_BN.masked_fill(transition.remasked, last).masked_fill(~transition.masked, last + 1)
    by_place_BN = place_BN.argsort(dim=1, stable=True)  # the revealed in order, the remasked, the known
    sorted_BN = phi.masked_fill(~transition.masked, NEVER).gather(1, by_place_BN)
    left_BN = sorted_BN.flip(1).logcumsumexp(dim=1).flip(1)  # over itself and all behind
    drawn_BN = transition.revealed.gather(1, by_place_BN)
    return torch.where(drawn_BN, sorted_BN - left_BN, 0.0).sum(dim=1)
