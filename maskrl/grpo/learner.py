"""What learns: everything that :func:`maskrl.grpo.update.learn` needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.processes import Process
from maskrl.interfaces import MaskedGenerator


class Scheduler(Protocol):
    """A learning rate schedule."""

    def step(self) -> None:
        """Advance by one update: called once in ``learn``, whatever ``num_updates`` and ``micro_batch``."""


@dataclass(frozen=True)
class Learner:
    """Scores what was painted under the policy's weights, and moves them.

    Attributes:
        generator: the policy; its ``module`` is what ``optimizer`` updates.
        reference: the frozen base model; needed where ``config.kl_coef`` > 0, never asked otherwise.
        micro_batch: (image, step) pairs per forward and backward; memory and speed only.
        score_batch: pairs of a micro-batch whose log-probabilities are kept for the backward pass; those of the others
            are computed again; memory and speed only.
        max_grad_norm: the gradient's norm is clipped to this; ``inf`` for never.
    """

    generator: MaskedGenerator
    reference: MaskedGenerator | None
    algorithm: Algorithm
    optimizer: torch.optim.Optimizer
    lr_scheduler: Scheduler | None
    process: Process
    micro_batch: int
    score_batch: int
    max_grad_norm: float
