"""``largest_change``: the loss revisits the steps at which the picture changes most."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.interfaces import StepReducer
from maskrl.reducers.computational import check_steps
from maskrl.types import Stream


class LargestChange(StepReducer):
    """T steps are taken, the k of the largest change teach, each with weight 1/k; the same ones for the whole batch.

    Source: MaskFocus (arXiv 2512.18766), which takes 6 of 64 for each image by the similarity of embeddings of decoded
    guesses; ours counts codes, and takes the mean over all images. It is no estimate of eq. 10.
    """

    class Config(ComponentConfig):
        """``steps`` is k."""

        steps: int = Field(ge=1)

    def rollout_steps(self, num_steps: int) -> int:
        """Return T, which must hold k steps."""
        return check_steps(self.config.steps, num_steps)

    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """The first k steps, where nothing has been painted: Long [k], Float [k]."""
        return self.train_steps_by(torch.zeros(rollout_steps), stream)

    def train_steps_by(self, change: Tensor, stream: Stream) -> tuple[Tensor, Tensor]:
        """The k steps of the largest change, in order; of equal ones the first: Long [k], Float [k]."""
        k: int = self.config.steps
        largest = change.argsort(descending=True, stable=True)[:k]
        return largest.sort().values, torch.full((k,), 1 / k, dtype=torch.float32)
