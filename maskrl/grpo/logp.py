"""The log-probabilities of recorded transitions under a generator's weights. Source: eqs. 13-15."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maskrl.grpo import answers
from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.policy import policy_logits
from maskrl.interfaces import Condition, MaskedGenerator, TransitionProb
from maskrl.types import Transition


def log_probs(
    generator: MaskedGenerator,
    algorithm: Algorithm,
    condition: Condition,
    transition: Transition,
    score_batch: int,
) -> tuple[Tensor, Tensor]:
    """Score K transitions: the logits they rest on, Float [M, V] at ``transition.packed``, and Float [K] nats.

    Args:
        generator: whose weights.
        algorithm: the transition probability, the guidance of the loss and the temperature of proposals.
        condition: of K rows.
        transition: what happened, as :func:`asked` returned it.
        score_batch: see :class:`maskrl.grpo.learner.Learner`.
    """
    sampling = algorithm.sampling
    inputs = (transition.step, sampling, sampling.guidance_loss, transition.places)
    logits_MV = policy_logits(generator, transition.state, condition, *inputs)
    return logits_MV, _score(algorithm.transition, logits_MV, transition, score_batch)


def asked(algorithm: Algorithm, transition: Transition) -> Transition:
    """Ask for logits where the loss looks: at the revealed positions, or, for a KL or such an estimator, at all masked.

    Whoever records log-probabilities asks as the loss does: kernels round by the shape.
    """
    if algorithm.transition.needs_remasked or algorithm.config.kl_coef:
        return transition
    return replace(transition, asked=transition.revealed)


def _score(estimator: TransitionProb, logits: Tensor, transition: Transition, score_batch: int) -> Tensor:
    """Score the rows of a micro-batch, ``score_batch`` at a time: Float [M, V] -> Float [K].

    A part keeps its logits alone; its softmax, in fp32, is computed again in the backward pass.
    """
    num_rows = len(transition.state)
    if num_rows <= score_batch:
        return answers.log_prob(estimator, logits, transition)
    rows = torch.arange(num_rows, device=logits.device).split(score_batch)
    counts = transition.packed.sum(dim=1).split(score_batch)
    sizes = torch.stack([count.sum() for count in counts]).tolist()
    again = partial(checkpoint, estimator.log_prob, use_reentrant=False, preserve_rng_state=False)
    return torch.cat(
        [
            answers.log_prob(estimator, part, transition.select(chunk), again)
            for chunk, part in zip(rows, logits.split(sizes), strict=True)
        ]
    )
