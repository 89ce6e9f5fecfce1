"""What step reducers answer."""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.grpo.answers.common import as_pair, as_tensor, kind
from maskrl.interfaces import StepReducer
from maskrl.types import Stream

SUM_TOLERANCE = 1e-5  # of the weights' sum: fp32 over a thousand steps is 1e-7 off


def rollout_steps(reducer: StepReducer, num_steps: int) -> int:
    """Ask how many of at most ``num_steps`` a training rollout takes.

    Raises:
        PluginError: it is no number in 1..num_steps.
    """
    with asking(reducer):
        found = reducer.rollout_steps(num_steps)
    try:
        steps = operator.index(found)
    except TypeError:
        steps = 0
    if not 1 <= steps <= num_steps:
        raise refused(reducer, f"rollout_steps({num_steps}) is {found!r}, not a number in 1..{num_steps}")
    return steps


def train_steps(
    reducer: StepReducer, num_steps: int, stream: Stream, change: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Ask which of T steps teach: Long [k] in [0, T), each once, and Float [k] >= 0 that sum to 1, both on the CPU.

    ``change``, Float [T], is what the steps have painted, where anything has been.

    Raises:
        PluginError: it is something else.
    """
    with asking(reducer):
        answer = (
            reducer.train_steps(num_steps, stream)
            if change is None
            else reducer.train_steps_by(change, stream)
        )
    first, second = as_pair(reducer, "train_steps", answer)
    steps, weights = as_tensor(reducer, "train_steps", first), as_tensor(reducer, "train_steps", second)
    if steps.dim() != 1 or not len(steps) or steps.is_floating_point() or steps.dtype == torch.bool:
        raise refused(reducer, f"train_steps returned {kind(steps)} for the steps instead of Long [k]")
    if len(set(steps.tolist())) < len(steps):
        raise refused(reducer, "train_steps names a step twice")
    if int(steps.min()) < 0 or int(steps.max()) >= num_steps:
        raise refused(reducer, f"train_steps names a step outside [0, {num_steps}): {steps.tolist()}")
    if weights.shape != steps.shape or weights.is_complex():
        raise refused(
            reducer, f"train_steps returned {kind(weights)} for the weights instead of Float {[len(steps)]}"
        )
    weights = weights.detach().to("cpu", torch.float32)
    if not (weights.isfinite() & (weights >= 0)).all():
        raise refused(
            reducer, f"train_steps gives a weight that is negative or not finite: {weights.tolist()}"
        )
    total = float(weights.double().sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise refused(reducer, f"train_steps' weights sum to {total:g}, not to 1: divide them by their sum")
    return steps.to("cpu", torch.long), weights
