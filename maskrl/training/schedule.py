"""The learning rate and the prompts of each update: functions of the update's number alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from maskrl.sections import TrainingConfig
from maskrl.types import Prompt, Stream


def learning_rate(update: int, config: TrainingConfig) -> float:
    """Return the learning rate of an update, counted from 0: linear warm-up, then the schedule."""
    if update < config.warmup_updates:
        return config.learning_rate * (update + 1) / config.warmup_updates
    end = config.updates if config.schedule_updates is None else config.schedule_updates
    done = (update - config.warmup_updates) / max(end - config.warmup_updates, 1)
    remaining = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return config.learning_rate * remaining[config.lr_schedule]


class LearningRate:
    """Sets an optimizer's learning rate; ``updates`` is how many were made."""

    def __init__(self, optimizer: torch.optim.Optimizer, config: TrainingConfig) -> None:
        self._optimizer, self._config = optimizer, config
        self.continue_from(0)

    def step(self) -> None:
        """Advance by one update."""
        self.continue_from(self.updates + 1)

    def continue_from(self, updates: int) -> None:
        """Set the learning rate of the update after so many."""
        self.updates = updates
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(updates, self._config)


def prompts_of(update: int, prompts: Sequence[Prompt], count: int, stream: Stream) -> list[Prompt]:
    """Draw the prompts of an update: each epoch is a permutation of all, consumed in order across updates.

    Args:
        update: from 0.
        prompts: all of them.
        count: how many an update takes; the same in every update.
        stream: the run's.
    """
    places = range(update * count, (update + 1) * count)
    orders = {
        epoch: torch.randperm(len(prompts), generator=stream.child("prompts", epoch).generator()).tolist()
        for epoch in {place // len(prompts) for place in places}
    }
    return [prompts[orders[place // len(prompts)][place % len(prompts)]] for place in places]
