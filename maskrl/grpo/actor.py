"""What paints and judges: everything that :func:`maskrl.grpo.update.collect` needs."""

from __future__ import annotations

from dataclasses import dataclass

from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.processes import Peers
from maskrl.interfaces import GroupFilter, MaskedGenerator, RewardModel, StepReducer
from maskrl.types import Stream


@dataclass(frozen=True)
class Portions:
    """How much an actor does at a time; memory and speed only.

    Attributes:
        rollout_batch: images per forward of the rollout.
        reward_batch: images per call of the reward.
        overlap_reward: whether images are judged while the next ones are painted.
        record_batch: (image, step) pairs per forward that records log-probabilities; None: ``rollout_batch``.
    """

    rollout_batch: int
    reward_batch: int
    overlap_reward: bool = False
    record_batch: int | None = None


@dataclass(frozen=True)
class Actor:
    """Paints groups of images and judges them.

    Attributes:
        generator: the behaviour policy; its weights are the learner's own, or others.
        stream: the root of this run's random streams.
        record_logp: whether a batch keeps the log-probabilities under the weights that painted it: one more forward
            pass, needed where the learner's weights are others by the time it learns. In bf16 kernels round by the size
            of a batch: give ``record_batch`` the size of the learner's ``micro_batch`` there.
    """

    generator: MaskedGenerator
    reward: RewardModel
    filter: GroupFilter
    reducer: StepReducer
    algorithm: Algorithm
    process: Peers
    stream: Stream
    portions: Portions
    record_logp: bool = False
