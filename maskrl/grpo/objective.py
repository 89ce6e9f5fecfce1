"""The loss of one transition, piece by piece. Source: eqs. 10-11."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.grpo.confidence import log_softmax
from maskrl.types import Transition

MAX_LOG_RATIO = 10.0  # exp(10) is far outside any clip range and far inside fp32


def ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """How much likelier a transition is than it was: Float [B], nats -> Float [B] in (0, 22027). Eq. 11."""
    return (logp - old_logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def surrogate(ratio: Tensor, adv: Tensor, eps_low: float, eps_high: float) -> Tensor:
    """Clip per image and step, never after a mean: Float [B] -> Float [B], to be maximised. Eq. 10."""
    return torch.minimum(ratio * adv, ratio.clamp(1 - eps_low, 1 + eps_high) * adv)


def clipped(ratio: Tensor, adv: Tensor, eps_low: float, eps_high: float) -> Tensor:
    """Tell where :func:`surrogate` is flat: Float [B] -> Bool [B]."""
    return ((ratio > 1 + eps_high) & (adv > 0)) | ((ratio < 1 - eps_low) & (adv < 0))


def kl_k3(logp: Tensor, reference_logp: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = reference - current: Float [B], nats -> Float [B] >= 0.

    An estimate of the KL only where the transition is normalised and is what was sampled (``p_theta1``
    without noise).
    """
    d_B = (reference_logp - logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return d_B.exp() - d_B - 1


def kl_exact(logits: Tensor, reference_logits: Tensor, transition: Transition) -> Tensor:
    """Sum the closed-form KL(current || reference) of the proposals over the masked positions.

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
