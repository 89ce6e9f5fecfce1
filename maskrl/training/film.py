"""How some images of an update came to be: which token at which step, how probable, and what it says in the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskrl.grpo.batch import Batch

DIGITS = 3  # of what is drawn as a colour


def films(batch: Batch, group: int) -> list[dict[str, Any]]:
    """Return a record of the best and of the worst image of a group; none where the painter recorded no steps.

    Each has ``image``, its place in the group; ``revealed_in``, the step of every token, from 0; ``logp``, nats, of
    every token when it came; and ``lesson``, for every step the advantage times the step's weight, 0 where the step is
    not in the loss. A token's part of the loss whose gradient is the update's is -lesson * logp. ``lesson`` is None
    where other steps are scored than those that painted.
    """
    if batch.trajectory.revealed_in is None or batch.trajectory.logp is None:
        return []
    rewards_G = batch.rewards[group]
    return [
        {
            "image": image,
            "revealed_in": batch.trajectory.revealed_in[row].tolist(),
            "logp": [round(value, DIGITS) for value in batch.trajectory.logp[row].tolist()],
            "lesson": _lesson(batch, group, image) if _are_steps_scored(batch, row) else None,
        }
        for image in dict.fromkeys([int(rewards_G.argmax()), int(rewards_G.argmin())])
        for row in [group * len(rewards_G) + image]
    ]


def _lesson(batch: Batch, group: int, image: int) -> list[float]:
    """Return what each step of an image is worth in the loss, before the mean over images: T numbers."""
    num_steps = batch.trajectory.num_steps
    adv_T = batch.adv[group, image].expand(num_steps)
    if batch.step_adv is not None:
        adv_T = batch.step_adv[group, image]
    weights_T = torch.zeros(num_steps, dtype=torch.float64)
    weights_T[batch.steps] = batch.weights.double()
    return [float(value) for value in (weights_T * adv_T.cpu()).tolist()]


def _are_steps_scored(batch: Batch, row: int) -> bool:
    """Tell whether the transitions to score are those that painted the image."""
    revealed_TN = batch.trajectory.reveal_rank[row] >= 0
    step_N: Tensor = batch.trajectory.revealed_in[row]  # type: ignore[index]
    return bool((revealed_TN.sum(dim=0) == 1).all() and (revealed_TN.long().argmax(dim=0) == step_N).all())
