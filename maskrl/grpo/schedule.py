"""How many positions each step reveals, and how much noise its confidence gets."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from maskrl.errors import RecipeError

F = TypeVar("F")


def cosine(u: Tensor) -> Tensor:
    """The share that stays masked, cos(pi/2 * u): Float in (0, 1] -> Float; fp32, in Show-o's order."""
    return torch.cos(u * math.pi * 0.5)


def linear(u: Tensor) -> Tensor:
    """The share that stays masked, 1 - u: u Float in (0, 1] -> Float."""
    return 1 - u


SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {"cosine": cosine, "linear": linear}


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
    gamma = _named(SCHEDULES, schedule, "schedule")
    masked = [num_tokens]
    for t in range(num_steps):
        share = gamma(torch.tensor((t + 1) / num_steps, dtype=torch.float32))
        wanted = int((num_tokens * share).floor())
        masked.append(max(num_steps - t - 1, min(masked[-1] - 1, wanted)))
    counts = [before - after for before, after in pairwise(masked)]
    assert masked[-1] == 0, "the last step reveals the rest"
    assert min(counts) >= 1, "every step reveals at least one position"
    return counts


def compound(num_steps: int, tau_init: float) -> list[float]:
    """Multiply by 1 - (t+1)/T before use at every step: Show-o, MMaDA (there by accident, here by name)."""
    factors = [1 - (t + 1) / num_steps for t in range(num_steps)]
    return list(accumulate(factors, lambda tau, factor: tau * factor, initial=tau_init))[1:]


def linear_decay(num_steps: int, tau_init: float) -> list[float]:
    """``tau_init * (1 - t/(T-1))``: aMUSEd, Meissonic."""
    return [tau_init * (1 - t / max(num_steps - 1, 1)) for t in range(num_steps)]


TEMPERATURE_RULES: dict[str, Callable[[int, float], list[float]]] = {
    "compound": compound,
    "linear": linear_decay,
}


def temperatures(num_steps: int, rule: str, tau_init: float) -> list[float]:
    """Scale the Gumbel noise of each step: T numbers >= 0.

    Raises:
        RecipeError: an unknown rule.
    """
    return _named(TEMPERATURE_RULES, rule, "temperature_rule")(num_steps, tau_init)


def _named(table: dict[str, F], name: str, what: str) -> F:
    if name not in table:
        raise RecipeError(f"no {what} is called {name!r}; there are {', '.join(map(repr, table))}")
    return table[name]
