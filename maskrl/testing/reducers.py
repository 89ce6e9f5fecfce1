"""What a step reducer promises."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from maskrl.asking import asking
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.interfaces import StepReducer
from maskrl.testing.classes import check_class
from maskrl.testing.promises import quiet, require
from maskrl.types import Stream

NUM_STEPS = (1, 2, 3, 8, 50, 256, 1024)


def check_reducer(component: StepReducer, num_steps: Sequence[int] = NUM_STEPS) -> None:
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
                steps_made = answers.rollout_steps(component, wanted)
            except RecipeError:
                continue
            checked += 1
            require(component, component.rollout_steps(wanted) == steps_made, "rollout_steps has noise")
            _check_steps(component, steps_made)
    require(component, checked > 0, f"rollout_steps refuses every number of steps in {list(num_steps)}")


def _check_steps(component: StepReducer, num_steps: int) -> None:
    with quiet(component, "train_steps"):
        steps, weights = answers.train_steps(component, num_steps, Stream(0))
    steps_again, weights_again = answers.train_steps(component, num_steps, Stream(0))
    same = torch.equal(steps, steps_again) and torch.equal(weights, weights_again)
    require(component, same, "train_steps draws noise that is not the stream's")
    change = torch.linspace(0.0, 1.0, num_steps, dtype=torch.float64)
    chosen, _ = answers.train_steps(component, num_steps, Stream(0), change)
    complaint = "train_steps_by chooses another number of steps than train_steps"
    require(component, len(chosen) == len(steps), complaint)
