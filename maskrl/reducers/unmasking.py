"""``unmasking``: training paints in fewer steps than evaluation."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.interfaces import StepReducer
from maskrl.types import Stream


class Unmasking(StepReducer):
    """T' < T steps in training, each with weight 1/T'. Source: Sec. 3.3, "Reduction Strategy" 2."""

    class Config(ComponentConfig):
        """``steps`` is T'; the paper takes 20 of 50."""

        steps: int = Field(ge=1)

    def rollout_steps(self, num_steps: int) -> int:
        """Return T', at most T."""
        steps: int = self.config.steps
        if steps > num_steps:
            raise RecipeError(f"reducer.steps = {steps} exceeds num_steps = {num_steps}; choose at most that")
        return steps

    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """All T' steps: Long [T'], Float [T']."""
        return torch.arange(rollout_steps), torch.full(
            (rollout_steps,), 1 / rollout_steps, dtype=torch.float32
        )
