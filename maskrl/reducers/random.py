"""``random``: the loss revisits steps drawn by chance."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.interfaces import StepReducer
from maskrl.reducers.computational import check_steps
from maskrl.types import Stream


class RandomSteps(StepReducer):
    """T steps are taken, k of them, without replacement, teach, each with weight 1/k: eq. 10 on average.

    Drawn from the run's stream: the same on all processes, and in all passes over a batch.
    """

    class Config(ComponentConfig):
        """``steps`` is k."""

        steps: int = Field(ge=1)

    def rollout_steps(self, num_steps: int) -> int:
        """Return T, which must hold k steps."""
        return check_steps(self.config.steps, num_steps)

    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """Any k steps, in order: Long [k], Float [k]."""
        k: int = self.config.steps
        drawn = torch.randperm(rollout_steps, generator=stream.generator())[:k]
        return drawn.sort().values, torch.full((k,), 1 / k, dtype=torch.float32)
