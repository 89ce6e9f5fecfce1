"""Which positions a step reveals: what makes a proposal a good one, and the order in which they are taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.grpo.halton import halton_order
from maskrl.interfaces import MaskedGenerator
from maskrl.types import StepIndex

Score = Callable[[MaskedGenerator, Tensor, Tensor, Tensor, StepIndex], Tensor]


def log_prob(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """Log p of the proposal: eq. 5, and every generator but MaskGen."""
    return logp


def logit(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """The logit of the proposal, not normalised, after guidance and before any temperature: MaskGen."""
    return logits.gather(-1, proposals[:, None]).squeeze(-1).float()


def own(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """What the generator says itself: :meth:`maskrl.interfaces.MaskedGenerator.confidence`."""
    return answers.confidence(generator, logits, proposals, step)


def max_prob(
    generator: MaskedGenerator, logits: Tensor, proposals: Tensor, logp: Tensor, step: StepIndex
) -> Tensor:
    """Log p of the likeliest code, whatever was proposed: a confidence that is free of values.

    Which positions are revealed is then independent of the codes there. It is of the logits as the network gives them,
    whatever the temperature of the proposals.
    """
    precise_MV = logits.float() if logits.dtype.itemsize < 4 else logits
    return precise_MV.amax(dim=-1) - precise_MV.logsumexp(dim=-1)


SCORES: dict[str, Score] = {"log_prob": log_prob, "logit": logit, "generator": own, "max_prob": max_prob}


@dataclass(frozen=True)
class Candidates:
    """The masked positions that a step chooses from.

    Attributes:
        score: Float [M], of the proposals.
        noise: Float [M], uniform in [0, 1).
        places: Long [M] in [0, N), where in its image each is.
        grid: (rows, columns) of the image; None: it has none.
    """

    score: Tensor
    noise: Tensor
    places: Tensor
    grid: tuple[int, int] | None = None


def confidence(candidates: Candidates, tau: float) -> Tensor:
    """Order by score + tau * Gumbel noise, the largest first; without noise where tau is 0. Source: eq. 5."""
    return candidates.score + tau * gumbel(candidates.noise).to(candidates.score.dtype)


def random(candidates: Candidates, tau: float) -> Tensor:
    """Order by chance alone: MDLM, and the control of every order."""
    return candidates.noise


def halton(candidates: Candidates, tau: float) -> Tensor:
    """Order by a fixed sequence that spreads over the grid, the same for every image: Halton-MaskGIT (2503.17076).

    Theirs may shift the sequence by chance for each image; ours does not.
    """
    assert candidates.grid is not None, "resolve() has looked"
    places_N = halton_order(*candidates.grid)
    return -places_N.to(candidates.places.device)[candidates.places].float()


# what is the largest is revealed: candidates and tau -> Float [M]
POSITION_POLICIES: dict[str, Callable[[Candidates, float], Tensor]] = {
    "confidence": confidence,
    "random": random,
    "halton": halton,
}


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise, finite also at 0; fp64."""
    return -(-uniform.double().clamp(min=1e-9).log()).log()


def rank(order: Tensor, num_revealed: int) -> Tensor:
    """Float [B, N] -> Long [B, N]: 0 at the largest ... n - 1, else -1. Stable, unlike ``topk``."""
    best_Bn = order.argsort(dim=1, descending=True, stable=True)[:, :num_revealed]
    rank_n = torch.arange(num_revealed, device=order.device)
    unranked_BN = torch.full(order.shape, -1, device=order.device)
    return unranked_BN.scatter(1, best_Bn, rank_n.expand_as(best_Bn))
