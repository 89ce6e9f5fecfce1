"""Which positions a step reveals: what makes a proposal a good one, and the order in which they are taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.interfaces import MaskedGenerator
from maskrl.types import StepIndex

Score = Callable[[MaskedGenerator, Tensor, Tensor, Tensor, StepIndex], Tensor]


def log_prob(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """Log p of the proposal: eq. 5, and every generator but MaskGen."""
    return logp


def own(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """What the generator says itself: :meth:`maskrl.interfaces.MaskedGenerator.confidence`."""
    return answers.confidence(generator, logits, proposals, step)


SCORES: dict[str, Score] = {"log_prob": log_prob, "generator": own}


def confidence(score: Tensor, noise: Tensor, tau: float) -> Tensor:
    """Order by score + tau * Gumbel noise, the largest first. Source: eq. 5.

    Args:
        score: Float [M], of the proposals.
        noise: Float [M], uniform in [0, 1).
        tau: temperature of the noise.
    """
    return score + tau * gumbel(noise).to(score.dtype)


POSITION_POLICIES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {"confidence": confidence}


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise, finite also at 0; fp64."""
    return -(-uniform.double().clamp(min=1e-9).log()).log()


def rank(order: Tensor, num_revealed: int) -> Tensor:
    """Float [B, N] -> Long [B, N]: 0 at the largest ... n - 1, else -1. Stable, unlike ``topk``."""
    best_Bn = order.argsort(dim=1, descending=True, stable=True)[:, :num_revealed]
    rank_n = torch.arange(num_revealed, device=order.device)
    unranked_BN = torch.full(order.shape, -1, device=order.device)
    return unranked_BN.scatter(1, best_Bn, rank_n.expand_as(best_Bn))
