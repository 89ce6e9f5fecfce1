"""What an update is made of, and what its first half hands to its second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from maskrl.grpo.config import GRPOConfig, Sampling
from maskrl.interfaces import (
    Condition,
    GroupFilter,
    MaskedGenerator,
    RewardModel,
    StepReducer,
    TransitionProb,
)
from maskrl.types import Prompt, Stream, Trajectory

T = TypeVar("T")


class Process(Protocol):
    """This process among the ``world_size`` that make an update together, ``rank`` in [0, world_size)."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate along dim 0 in rank order; the same shape on every process."""

    def sum(self, value: Tensor) -> Tensor:
        """Add up over the processes."""

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients, in place: their *sum*, not their mean."""

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Concatenate lists of plain objects in rank order; they may differ in length."""

    def wait(self) -> None:
        """Wait until every process is here."""


@dataclass(frozen=True)
class SingleProcess:
    """The only process."""

    rank: int = 0
    world_size: int = 1

    def gather(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def sum(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Leave them as they are."""

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Return the values."""
        return list(values)

    def wait(self) -> None:
        """Nobody is waited for."""


class Scheduler(Protocol):
    """A learning rate schedule."""

    def step(self) -> None:
        """Advance by one update: called once in ``learn``, whatever ``num_updates`` and ``micro_batch``."""


@dataclass(frozen=True)
class Parts:
    """Everything :func:`maskrl.grpo.update.collect` and ``learn`` need.

    Attributes:
        generator: the policy; its ``module`` is what ``optimizer`` updates.
        reference: the frozen base model; needed where ``config.kl_coef`` > 0, never asked otherwise.
        stream: the root of this run's random streams.
        micro_batch: (image, step) pairs per forward and backward; memory and speed only.
        score_batch: pairs of a micro-batch whose log-probabilities are kept for the backward pass; those of the others
            are computed again; memory and speed only.
        rollout_batch: images per forward of the rollout; memory and speed only.
        reward_batch: images per call of the reward; memory and speed only.
        overlap_reward: whether images are judged while the next ones are painted; speed only.
        max_grad_norm: the gradient's norm is clipped to this; ``inf`` for never.
    """

    generator: MaskedGenerator
    reference: MaskedGenerator | None
    transition: TransitionProb
    reward: RewardModel
    filter: GroupFilter
    reducer: StepReducer
    config: GRPOConfig
    sampling: Sampling
    optimizer: torch.optim.Optimizer
    lr_scheduler: Scheduler | None
    process: Process
    stream: Stream
    micro_batch: int
    score_batch: int
    rollout_batch: int
    reward_batch: int
    overlap_reward: bool
    max_grad_norm: float


@dataclass(frozen=True)
class Batch:
    """What this process collected in one update; image b belongs to prompt b // G.

    Attributes:
        update: which update, from 0.
        prompts: P prompts.
        condition: of P rows.
        trajectory: of B = P * G images, the transitions to score.
        images: Float [B, 3, H, W] in [0, 1].
        rewards: Float [P, G].
        keep: Bool [P]: whether the group enters the loss.
        adv: Float [P, G], 0 where the group does not.
        steps: Long [k] in [0, T), those that enter the loss; weights: Float [k].
        metrics: of all processes, but for the seconds.
    """

    update: int
    prompts: Sequence[Prompt]
    condition: Condition
    trajectory: Trajectory
    images: Tensor
    rewards: Tensor
    keep: Tensor
    adv: Tensor
    steps: Tensor
    weights: Tensor
    metrics: dict[str, float]


def lockstep(wanted: Tensor, process: Process) -> list[int]:
    """Choose this process's groups so that every process runs as many.

    Args:
        wanted: Bool [S], over the groups of all processes in slot order.
        process: this one.

    Returns:
        Indices in [0, S / world_size): the wanted ones in order, then as many others as keep step.
    """
    shares = wanted.view(process.world_size, -1)
    most = int(shares.sum(dim=1).max())
    order: list[int] = shares[process.rank].long().argsort(descending=True, stable=True)[:most].tolist()
    return order
