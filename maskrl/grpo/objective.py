"""The loss of one transition, piece by piece. Source: eqs. 10-11."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from maskrl.grpo.confidence import log_softmax, pick
from maskrl.types import Transition

MAX_LOG_RATIO = 10.0  # exp(10) is far outside any clip range and far inside fp32
LEAST_RATIO, LARGEST_RATIO = math.exp(-MAX_LOG_RATIO) * (1 + 1e-5), math.exp(MAX_LOG_RATIO) * (1 - 1e-5)
MAX_WEIGHT = (
    20.0  # of a proposal that the reference likes better than the policy: a KL of single samples, e^3
)


def ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """How much likelier a transition is than it was: Float [B], nats -> Float [B] in (0, 22027). Eq. 11."""
    return (logp - old_logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def surrogate(
    ratio: Tensor, adv: Tensor, eps_low: float, eps_high: float, dual_clip: float = math.inf
) -> Tensor:
    """Clip per image and step, never after a mean: Float [B] -> Float [B], to be maximised. Eq. 10.

    Eq. 10 does not bound a ratio above 1 where the advantage is negative; ``dual_clip`` does, and lies above
    1 + ``eps_high``. Source: Ye et al. 2020 (arXiv 1912.09729), eq. 5.
    """
    gain_B = torch.minimum(ratio * adv, ratio.clamp(1 - eps_low, 1 + eps_high) * adv)
    if dual_clip == math.inf:
        return gain_B
    return torch.where(adv < 0, torch.maximum(gain_B, dual_clip * adv), gain_B)


def clipped(
    ratio: Tensor, adv: Tensor, eps_low: float, eps_high: float, dual_clip: float = math.inf
) -> Tensor:
    """Tell where :func:`surrogate` has no gradient: Float [B] -> Bool [B]; where :func:`ratio` is clamped too."""
    clamped = (ratio <= LEAST_RATIO) | (ratio >= LARGEST_RATIO)
    above = (ratio > 1 + eps_high) & (adv > 0) | (ratio > dual_clip) & (adv < 0)
    return clamped | above | (ratio < 1 - eps_low) & (adv < 0)


def kl_exact(logits: Tensor, reference_logits: Tensor, transition: Transition) -> Tensor:
    """Sum the closed-form KL(policy || reference) of the proposals over the masked positions.

    Args:
        logits: Float [M, V], packed.
        reference_logits: Float [M, V], packed.
        transition: which positions are whose.

    Returns:
        Float [B] >= 0, nats: the KL of the transition in the last step, where all is revealed. Before it, no bound
        on either side: the next state forgets proposals, but the weights also decide the order.
    """
    log_p_MV, log_q_MV = log_softmax(logits), log_softmax(reference_logits)
    return transition.sum_rows((log_p_MV.exp() * (log_p_MV - log_q_MV)).sum(dim=-1))


def kl_k2(logits: Tensor, reference_logits: Tensor, transition: Transition) -> Tensor:
    """Sum d**2 / 2 over the proposals, d = log q - log p at each masked position: as :func:`kl_exact`, Float [B] >= 0.

    Its gradient is on average that of KL(policy || reference), eq. 10's; its value is not quite the KL. Source:
    Schulman 2020, "Approximating KL divergence".
    """
    d_M = _drift(logits, reference_logits, transition)
    return transition.sum_rows(d_M.square() / 2)


def kl_k3(logits: Tensor, reference_logits: Tensor, transition: Transition) -> Tensor:
    """Sum exp(d) - d - 1 over the proposals, d as in :func:`kl_k2`: Float [B] >= 0.

    Its value is on average KL(policy || reference), but its gradient that of KL(reference || policy). Where a proposal
    is more than ``MAX_WEIGHT`` times likelier under the reference, the exponential goes on as its tangent: it pulls
    still, and not without bound. Source: Schulman 2020, "Approximating KL divergence".
    """
    d_M = _drift(logits, reference_logits, transition)
    near_M = d_M.clamp(max=math.log(MAX_WEIGHT))
    return transition.sum_rows(near_M.exp() + MAX_WEIGHT * (d_M - near_M) - d_M - 1)


def _drift(logits: Tensor, reference_logits: Tensor, transition: Transition) -> Tensor:
    """Log q - log p of every proposal, Float [M], nats: of a position, not of a sum over a thousand of them."""
    proposals = transition.pack(transition.proposals)
    return pick(log_softmax(reference_logits), proposals) - pick(log_softmax(logits), proposals)


KL: dict[str, Callable[[Tensor, Tensor, Transition], Tensor]] = {
    "exact": kl_exact,
    "k2": kl_k2,
    "k3": kl_k3,
}
