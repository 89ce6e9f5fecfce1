"""What the first half of an update hands to the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from maskrl.interfaces import Condition
from maskrl.types import Prompt, Trajectory


@dataclass(frozen=True)
class Batch:
    """What this process collected in one update; image b belongs to prompt b // G.

    Attributes:
        update: which update, from 0.
        version: of the weights that painted it, as :func:`maskrl.grpo.version.version` tells them apart.
        prompts: P prompts.
        condition: of P rows.
        trajectory: of B = P * G images, the transitions to score.
        images: Float [B, 3, H, W] in [0, 1].
        rewards: Float [P, G], the scores.
        reward_columns: Float [P, G, R], the terms they are made of; where the reward has none, the scores themselves.
        reward_names: of the R columns.
        keep: Bool [P]: whether the group enters the loss.
        adv: Float [P, G], 0 where the group does not.
        step_adv: Float [P, G, T], of each step by itself; None: all have the image's.
        steps: Long [k] in [0, T), those that enter the loss; weights: Float [k].
        old_logp: Float [B, k], nats: of those steps under the weights that painted; None where it is not recorded.
        metrics: of all processes, but for the seconds.
    """

    update: int
    version: int
    prompts: Sequence[Prompt]
    condition: Condition
    trajectory: Trajectory
    images: Tensor
    rewards: Tensor
    reward_columns: Tensor
    reward_names: Sequence[str]
    keep: Tensor
    adv: Tensor
    step_adv: Tensor | None
    steps: Tensor
    weights: Tensor
    old_logp: Tensor | None
    metrics: dict[str, float]
