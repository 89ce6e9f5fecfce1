"""``none``: every step is taken and every step teaches."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.interfaces import StepReducer
from maskrl.types import Stream


class NoReduction(StepReducer):
    """T steps, each with weight 1/T. Source: eq. 10."""

    def rollout_steps(self, num_steps: int) -> int:
        """Return T."""
        return num_steps

    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """All T steps: Long [T], Float [T]."""
        return torch.arange(rollout_steps), torch.full(
            (rollout_steps,), 1 / rollout_steps, dtype=torch.float32
        )
