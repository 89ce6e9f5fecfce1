"""``p_theta1``: the probability of the next state."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.grpo.confidence import border, log_softmax, pick, remaskable, unpack_bits
from maskrl.interfaces import TransitionProb
from maskrl.types import Transition

LOG_FLOOR = (
    -100.0
)  # nats: no position's factor falls below e^-100, so that a set that has become empty stays finite


class PTheta1(TransitionProb):
    """Revealed positions by their proposals, remasked ones by all that could have been proposed there.

    Sum ``log p_i(y_i)`` over revealed i and ``log(sum_{k: p_j^k < threshold} p_j^k)`` over remasked j.
    Exact where the confidence has no noise: it sums to 1 over all next states.

    Source: eq. 14. Ours: ties follow the sampler (lowest index first); positions that only noise could remask
    are dropped (``floored``, decided under the behaviour policy, so old and new drop the same).
    """

    class Config(ComponentConfig):
        """Which codes k would have left a position masked (``threshold``).

        - ``current``: those less likely than min(cs) of the weights being scored. Normalised, also off-policy; but
          codes cross the threshold as weights move, which makes it jump.
        - ``kept_set``: those of the rollout, for old and new weights alike. Smooth in the weights, and normalised off
          policy too: it is the probability, under the new proposals, of what the old confidences would have made of
          them. It records N * V / 8 bytes an image and step.
        - ``recorded``: those less likely than min(cs) of the rollout. Elsewhere than on policy it is no likelihood.
        - ``border``: those less likely than the last position that the *noisy* confidence let through, as the released
          code has it. Without noise it is ``current``.

        On policy all but ``border`` have the same value and gradient.

        ``normalize`` = "mean" divides by M_t: the log of a geometric mean, no probability of the transition.
        """

        threshold: Literal["current", "kept_set", "recorded", "border"] = "current"
        normalize: Literal["sum", "mean"] = "sum"

    needs_log_prob = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.needs_sets = self.continuous = config.threshold == "kept_set"

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        log_p_MV = log_softmax(logits)
        logp_M = pick(log_p_MV, transition.pack(transition.proposals))
        inside_MV = self._remaskable(log_p_MV.detach(), logp_M.detach(), transition)
        dropped_M = transition.pack(transition.floored)
        if (
            self.config.threshold == "border"
        ):  # a larger threshold: a set that min(cs) leaves empty may not be
            dropped_M = dropped_M & ~inside_MV.any(dim=-1)
        scored_M = transition.pack(transition.remasked) & ~dropped_M
        factor_M = torch.where(scored_M, _log_sum(log_p_MV, inside_MV), 0.0)
        logp_B = transition.sum_rows(torch.where(transition.pack(transition.revealed), logp_M, factor_M))
        return logp_B / transition.masked.sum(dim=1) if self.config.normalize == "mean" else logp_B

    def _remaskable(self, log_p: Tensor, logp: Tensor, transition: Transition) -> Tensor:
        """Bool [M, V]: the set {k} of eq. 14 at every masked position."""
        if self.config.threshold == "kept_set":
            assert transition.sets is not None, "the rollout recorded no sets"
            return unpack_bits(transition.pack(transition.sets), log_p.shape[1])
        logp_BN = transition.unpack(logp, torch.inf)
        threshold_B, ties_lose_BN = border(logp_BN, transition.revealed)
        if self.config.threshold == "recorded":
            threshold_B = transition.threshold.log().to(logp.dtype)
        if self.config.threshold == "border":
            last_B1 = transition.reveal_rank.argmax(dim=1, keepdim=True)
            threshold_B = logp_BN.gather(1, last_B1).squeeze(1)
            ties_lose_BN = torch.arange(logp_BN.shape[1], device=logp.device) > last_B1
        threshold_BN = threshold_B[:, None].expand_as(transition.state)
        return remaskable(log_p, transition.pack(threshold_BN), transition.pack(ties_lose_BN))


def _log_sum(log_p: Tensor, inside: Tensor) -> Tensor:
    """Log of the summed p of some codes: Float [M, V], Bool [M, V] -> Float [M] >= LOG_FLOOR.

    ``logsumexp(logits[inside]) - logsumexp(logits)``, the second one taken by the log-softmax. An empty set
    gives LOG_FLOOR and no gradient: the filler is finite, so that no inf - inf appears on the way back.
    """
    nothing = torch.finfo(log_p.dtype).min / 2
    return log_p.masked_fill(~inside, nothing).logsumexp(dim=-1).clamp(min=LOG_FLOOR)
