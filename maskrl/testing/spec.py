"""What a generator promises of its sizes, its sampler and its cost."""

from __future__ import annotations

import math

from torch import nn

from maskrl.errors import RecipeError
from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.interfaces import MaskedGenerator
from maskrl.testing.promises import require


def check_spec(component: MaskedGenerator) -> None:
    """Sizes fit each other, the sampler's rules are known, and adapters have layers to stand beside."""
    spec = component.spec
    many = spec.num_tokens >= 1 and spec.num_codes >= 2
    require(component, many, "spec has no tokens, or fewer than two codes")
    require(component, not 0 <= spec.mask_id < spec.num_codes, f"spec.mask_id = {spec.mask_id} is a code")
    fits = spec.grid is None or math.prod(spec.grid) == spec.num_tokens
    require(component, fits, f"spec.grid = {spec.grid} does not hold {spec.num_tokens} tokens")
    layers = [name for name, part in component.module.named_modules() if isinstance(part, nn.Linear)]
    for target in spec.lora_targets:
        known = any(name == target or name.endswith(f".{target}") for name in layers)
        require(component, known, f"spec.lora_targets names {target!r}; module has no such linear layer")
    steps = spec.sampler.num_steps
    fits = isinstance(steps, int) and 1 <= steps <= spec.num_tokens
    require(component, fits, f"spec.sampler.num_steps = {steps} is no integer in 1..num_tokens")
    resolve(SamplingConfig(), spec, component)  # the names of its sampler are known ones


def check_cost(component: MaskedGenerator) -> None:
    """Where it says what it costs, it says the same as its networks and its spec."""
    try:
        cost = type(component).cost(component.config, text_tokens=8)
    except RecipeError:  # it does not say
        return
    held = sum(p.numel() for p in component.module.parameters())
    numbers = f"cost says {cost.parameters} parameters, module has {held}"
    require(component, cost.parameters == held, numbers)
    held = sum(p.numel() for network in component.frozen for p in network.parameters())
    numbers = f"cost says {cost.frozen_parameters} frozen parameters, 'frozen' has {held}"
    require(component, cost.frozen_parameters == held, numbers)
    require(component, cost.spec == component.spec, "cost has another spec")
