"""Whether the policy that learns is the one that painted, measured on what was painted.

Where no weight has moved, old and new log-probabilities are equal by construction, also if both are of another policy
than the sampler's: a network with dropout, with a state of its own, that gives other logits with a gradient than
without. What was recorded while painting tells.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.asking import refused
from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import MaskedGenerator, TransitionProb
from maskrl.types import Transition

# Nats. Measured with the shipped network, micro-batches of 1 and 8: fp32 4e-6 (3e-5 at guidance 4), bf16 0.02.
FP32, BF16 = 0.05, 2.0


def is_comparable(algorithm: Algorithm) -> bool:
    """Tell whether the loss scores what was recorded, under the guidance that painted."""
    sampling = algorithm.sampling
    recorded = type(algorithm.transition).scored is TransitionProb.scored
    return recorded and sampling.guidance_loss == sampling.guidance_train


@torch.no_grad()
def policy_gap(logits: Tensor, transition: Transition) -> Tensor:
    """Compare log p of the least likely code that was revealed: as it was painted, and under these logits.

    Args:
        logits: Float [M, V] at ``transition.packed``, row by row.
        transition: B steps as they were recorded.

    Returns:
        Float [B], nats, >= 0.
    """
    logp_M = pick(log_softmax(logits), transition.pack(transition.proposals)).double()
    logp_BN = transition.unpack(logp_M).masked_fill(~transition.revealed, torch.inf)
    return (logp_BN.amin(dim=1) - transition.threshold.double().log()).abs().float()


def check_gap(gap: float, generator: MaskedGenerator, algorithm: Algorithm) -> None:
    """Stop before a policy learns from images that another one painted.

    Raises:
        PluginError: the gap is beyond rounding.
    """
    weights = generator.module.parameters()
    coarse = generator.precision != "fp32" or any(p.dtype in (torch.bfloat16, torch.float16) for p in weights)
    guidance = abs(algorithm.sampling.guidance_train)  # it multiplies the rounding of bf16
    if gap <= (BF16 * (1 + 2 * guidance) if coarse else FP32):
        return
    raise refused(
        generator,
        f"when it learns, what it has painted has another probability than when it painted it (policy_gap {gap:.2g}"
        " nats): its logits depend on more than their inputs and the weights; 'maskrl plugins check' may say on what",
    )
