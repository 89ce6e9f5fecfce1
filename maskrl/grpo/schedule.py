"""How many positions each step reveals."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo.tables import look_up


def cosine(u: Tensor) -> Tensor:
    """The share that stays masked, cos(pi/2 * u): Float in (0, 1] -> Float; fp32, in Show-o's order."""
    return torch.cos(u * math.pi * 0.5)


def linear(u: Tensor) -> Tensor:
    """The share that stays masked, 1 - u: u Float in (0, 1] -> Float."""
    return 1 - u


def arccos(u: Tensor) -> Tensor:
    """The share that stays masked, as MaskGen, MaskBit and Halton-MaskGIT have it: Float in (0, 1] -> Float."""
    return torch.arccos(u) / (math.pi * 0.5)


SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {"cosine": cosine, "linear": linear, "arccos": arccos}


def unmask_counts(num_tokens: int, num_steps: int, schedule: str) -> list[int]:
    """Count the positions revealed at each step: T numbers n_t >= 1 that add up to N.

    ``M_{t+1} = max(T-t-1, min(M_t - 1, floor(N * gamma((t+1)/T))))`` stay masked after step t,
    and ``n_t = M_t - M_{t+1}``.

    Raises:
        RecipeError: more steps than tokens, no step, or an unknown schedule.

    Source: eq. 4. Unlike Show-o's released sampler the last step reveals everything that is left.
    """
    if not 1 <= num_steps <= num_tokens:
        raise RecipeError(
            f"num_steps = {num_steps}, but an image has {num_tokens} tokens and every step reveals"
            f" at least one; choose 1 to {num_tokens}"
        )
    gamma = look_up(SCHEDULES, schedule, "schedule")
    masked = [num_tokens]
    for t in range(num_steps):
        share = gamma(torch.tensor((t + 1) / num_steps, dtype=torch.float32))
        wanted = int((num_tokens * share).floor())
        masked.append(max(num_steps - t - 1, min(masked[-1] - 1, wanted)))
    counts = [before - after for before, after in pairwise(masked)]
    assert masked[-1] == 0, "the last step reveals the rest"
    assert min(counts) >= 1, "every step reveals at least one position"
    return counts
