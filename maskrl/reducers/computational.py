"""``computational``: the loss revisits only the first or the last steps."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.interfaces import StepReducer
from maskrl.types import Stream


class Computational(StepReducer):
    """T steps are taken, k of them teach, each with weight 1/k. Source: Sec. 3.3, "Reduction Strategy" 1."""

    class Config(ComponentConfig):
        """``steps`` is k; the paper takes 25 of 50."""

        steps: int = Field(ge=1)
        which: Literal["first", "last"] = "first"

    def rollout_steps(self, num_steps: int) -> int:
        """Return T, which must hold k steps."""
        return check_steps(self.config.steps, num_steps)

    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """The first or last k steps: Long [k], Float [k]."""
        k: int = self.config.steps
        start = 0 if self.config.which == "first" else rollout_steps - k
        return torch.arange(start, start + k), torch.full((k,), 1 / k, dtype=torch.float32)


def check_steps(steps: int, num_steps: int) -> int:
    """Return T, which must hold k steps.

    Raises:
        RecipeError: it does not.
    """
    if steps > num_steps:
        raise RecipeError(f"reducer.steps = {steps} exceeds num_steps = {num_steps}; choose at most that")
    return num_steps
