"""Classifier-free guidance: how strong it is at each step, and what it makes of the two branches.

The weight is w in ``(1 + w) * cond - w * uncond``. Others write ``uncond + guidance_scale * (cond - uncond)``:
w = guidance_scale - 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from maskrl.grpo.tables import look_up
from maskrl.grpo.temperature import constant


def linear(num_steps: int, guidance: float) -> list[float]:
    """From 0 to w, ``w * t/(T-1)``: Halton-MaskGIT's sampler by confidence."""
    return [guidance * (t / max(num_steps - 1, 1)) for t in range(num_steps)]


def cosine(num_steps: int, guidance: float) -> list[float]:
    """From 1 to w, ``1 + (w - 1) * (1 - cos(pi * (t+1)/T)) / 2``: MaskGen."""
    turns = [(1 - math.cos(math.pi * (t + 1) / num_steps)) / 2 for t in range(num_steps)]
    return [1 + (guidance - 1) * turn for turn in turns]


GUIDANCE_RULES: dict[str, Callable[[int, float], list[float]]] = {
    "constant": constant,  # Show-o, aMUSEd, Meissonic
    "linear": linear,
    "cosine": cosine,
}


def guidance_weights(num_steps: int, rule: str, guidance: float) -> list[float]:
    """Return w of each of T steps; a ``guidance`` of 0 is none at all, whatever the rule.

    Raises:
        RecipeError: an unknown rule.
    """
    weights = look_up(GUIDANCE_RULES, rule, "guidance_rule")(num_steps, guidance)
    return weights if guidance else [0.0] * num_steps


def guided(
    conditional: Tensor, unconditional: Tensor, guidance: Tensor, positions: Tensor | None = None
) -> Tensor:
    """Return ``(1 + w) * cond - w * uncond``, in fp32 at least.

    Args:
        conditional: Float [B, N, V], or [M, V] at ``positions``, packed row by row.
        unconditional: as ``conditional``.
        guidance: Float [B], fp64: w of each row. 1 + w is rounded once, to the precision of the logits.
        positions: Bool [B, N].
    """
    weight = guidance[:, None]
    if positions is not None:  # how many there are is known: the device need not be asked
        weight = guidance.repeat_interleave(positions.sum(dim=1), output_size=len(conditional))
    weight = weight[..., None]
    conditional, unconditional = (
        x.float() if x.dtype.itemsize < 4 else x for x in (conditional, unconditional)
    )
    return (1 + weight).to(conditional.dtype) * conditional - weight.to(conditional.dtype) * unconditional
