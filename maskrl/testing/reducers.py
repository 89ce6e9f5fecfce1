"""What a step reducer promises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.errors import RecipeError
from maskrl.grpo.answers import kind
from maskrl.interfaces import StepReducer
from maskrl.testing.classes import check_class
from maskrl.testing.promises import quiet, require, require_floats
from maskrl.types import Stream

SUM_TOLERANCE = 1e-4  # of the weights' sum: fp32 over at most a thousand steps


def check_reducer(component: StepReducer, num_steps: Sequence[int] = (1, 2, 3, 8, 50)) -> None:
    """Check for several T that steps are distinct and inside the rollout, and weights finite, >= 0 and 1 together.

    Numbers of steps that it refuses by a ``RecipeError`` are left out.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.StepReducer`.
    """
    check_class(type(component))
    checked = 0
    with asking(component):
        for wanted in num_steps:
            try:
                steps_made = component.rollout_steps(wanted)
            except RecipeError:
                continue
            checked += 1
            fine = isinstance(steps_made, int) and 1 <= steps_made <= wanted
            require(component, fine, f"rollout_steps({wanted}) is {steps_made!r}")
            require(component, component.rollout_steps(wanted) == steps_made, "rollout_steps has noise")
            _check_steps(component, steps_made)
    require(component, checked > 0, f"rollout_steps refuses every number of steps in {list(num_steps)}")


def _check_steps(component: StepReducer, num_steps: int) -> None:
    with quiet(component, "train_steps"):
        steps, weights = component.train_steps(num_steps, Stream(0))
    again, weights_again = component.train_steps(num_steps, Stream(0))
    same = torch.equal(steps, again) and torch.equal(weights, weights_again)
    require(component, same, "train_steps draws noise that is not the stream's")
    is_long = isinstance(steps, Tensor) and steps.dtype == torch.long and steps.dim() == 1
    require(component, is_long, f"train_steps returned {kind(steps)} instead of Long [k]")
    require(
        component, 1 <= len(steps) == len(set(steps.tolist())), "train_steps names no step, or repeats one"
    )
    inside = int(steps.min()) >= 0 and int(steps.max()) < num_steps
    require(component, inside, f"train_steps names a step outside [0, {num_steps})")
    require_floats(component, "train_steps' weights", weights, (len(steps),), torch.float32)
    require(component, bool((weights >= 0).all()), "train_steps returned a negative weight")
    total = float(weights.double().sum())
    require(component, abs(total - 1) <= SUM_TOLERANCE, f"train_steps' weights sum to {total:g}, not to 1")
