"""Temperatures of each step: of the noise on the confidence, and of the proposals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from maskrl.grpo.tables import look_up


def compound(num_steps: int, tau_init: float) -> list[float]:
    """Multiply by 1 - (t+1)/T before use at every step: Show-o, MMaDA (there by accident, here by name)."""
    factors = [1 - (t + 1) / num_steps for t in range(num_steps)]
    return list(accumulate(factors, lambda tau, factor: tau * factor, initial=tau_init))[1:]


def linear_decay(num_steps: int, tau_init: float) -> list[float]:
    """``tau_init * (1 - t/(T-1))``: aMUSEd, Meissonic."""
    return [tau_init * (1 - t / max(num_steps - 1, 1)) for t in range(num_steps)]


def maskgit(num_steps: int, tau_init: float) -> list[float]:
    """``tau_init * (1 - (t+1)/T)``, 0 at the last step: MaskGIT (4.5), MaskGen (2)."""
    return [tau_init * (1 - (t + 1) / num_steps) for t in range(num_steps)]


def constant(num_steps: int, temperature: float) -> list[float]:
    """The same at every step: the noise of Lumina-DiMOO (1), and most models' proposals (1)."""
    return [temperature] * num_steps


def maskgen(num_steps: int, temperature: float) -> list[float]:
    """``temperature * (1 - r) * (0.5 + 0.8 * (1 - r))`` with r = (t+1)/T, 0 at the last step: MaskGen (2).

    Its proposals have this temperature, and its score, the logit over 0.5 + 0.8 * (1 - r) with noise of temperature
    2 * (1 - r), has the order of the logit itself with noise of this one.
    """
    left = [1 - (t + 1) / num_steps for t in range(num_steps)]
    return [temperature * rest * (0.5 + 0.8 * rest) for rest in left]


TEMPERATURE_RULES: dict[str, Callable[[int, float], list[float]]] = {
    "compound": compound,
    "linear": linear_decay,
    "maskgit": maskgit,
    "constant": constant,
    "maskgen": maskgen,
}
VALUE_TEMPERATURES: dict[str, Callable[[int, float], list[float]]] = {
    "constant": constant,
    "maskgen": maskgen,
}


def temperatures(num_steps: int, rule: str, tau_init: float) -> list[float]:
    """Scale the Gumbel noise of each step: T numbers >= 0.

    Raises:
        RecipeError: an unknown rule.
    """
    return look_up(TEMPERATURE_RULES, rule, "temperature_rule")(num_steps, tau_init)


def value_temperatures(num_steps: int, rule: str, temperature: float) -> list[float]:
    """Divide the logits of each step's proposals: T numbers >= 0; at 0 the likeliest code is proposed, without chance.

    Raises:
        RecipeError: an unknown rule.
    """
    return look_up(VALUE_TEMPERATURES, rule, "value_temperature_rule")(num_steps, temperature)


def tempered(logits: Tensor, temperature: Tensor | None) -> Tensor:
    """Divide logits by a temperature of each: Float [M, V], Float [M] or None -> Float [M, V], then fp32 at least."""
    if temperature is None:
        return logits
    precise = logits.float() if logits.dtype.itemsize < 4 else logits
    return precise / temperature.to(precise.dtype)[:, None]


def peaked(logits: Tensor) -> Tensor:
    """Log p at temperature 0: Float [M, V] -> Float [M, V], nats; 0 at a likeliest code, -inf at the others."""
    nowhere_MV = torch.full_like(logits, -torch.inf, dtype=torch.float32)
    return nowhere_MV.scatter(-1, logits.argmax(dim=-1, keepdim=True), 0.0)
