"""What transition probabilities answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import refused
from maskrl.grpo.answers.common import kind, lending
from maskrl.interfaces import TransitionProb
from maskrl.types import Stream, Trajectory, Transition


def scored(transition: TransitionProb, trajectory: Trajectory, stream: Stream) -> Trajectory:
    """Ask for the transitions to score, of the same images.

    Raises:
        PluginError: it is something else.
    """
    with lending(transition, "scored", **_tensors(trajectory)):
        found = transition.scored(trajectory, stream)
    if not isinstance(found, Trajectory) or found.num_images != trajectory.num_images:
        raise refused(transition, f"scored returned no Trajectory of {trajectory.num_images} images")
    _check_shapes(transition, found, trajectory)
    if not torch.equal(found.tokens, trajectory.tokens) or found.mask_id != trajectory.mask_id:
        raise refused(transition, "scored returned other images than it was given, or in another order")
    return found


def _check_shapes(transition: TransitionProb, found: Trajectory, given: Trajectory) -> None:
    """Compare the shapes of what was returned with those of a trajectory of as many steps as it has."""
    images, steps, tokens = given.num_images, found.num_steps, given.tokens.shape[1]
    each, all_tokens = (images, steps), (images, steps, tokens)
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(
        ("state", "proposals", "reveal_rank", "floored"), all_tokens
    )
    wanted |= {"threshold": each, "entropy": each, "tau": (steps,), "tokens": (images, tokens)}
    for name, shape in wanted.items():
        value, like = getattr(found, name), getattr(given, name)
        same = isinstance(value, Tensor) and value.shape == shape and value.dtype == like.dtype
        if not same or value.device != like.device:
            dtype = str(like.dtype).removeprefix("torch.")
            raise refused(
                transition, f"scored returned {kind(value)} as {name!r} instead of {dtype} {list(shape)}"
            )
    if found.sets is not None and found.sets.shape[:3] != all_tokens:
        raise refused(
            transition, f"scored returned {kind(found.sets)} as 'sets', of other images, steps or tokens"
        )


def log_prob(
    transition: TransitionProb, logits: Tensor, taken: Transition, call: Callable[..., Any] | None = None
) -> Tensor:
    """Score B transitions, Float [M, V]: Float [B], with a gradient where the logits have one.

    ``call`` is called in the place of ``transition.log_prob``: a checkpoint of its activations.

    Raises:
        PluginError: it is something else.
    """
    with lending(transition, "log_prob", logits=logits, step=taken.step.t, **_tensors(taken)):
        found = (call or transition.log_prob)(logits, taken)
    size = len(taken.state)
    precise = isinstance(found, Tensor) and found.dtype in (torch.float32, torch.float64)
    if not precise or found.shape != (size,):
        raise refused(transition, f"log_prob returned {kind(found)} instead of float32 [{size}]")
    if torch.is_grad_enabled() and logits.requires_grad and not found.requires_grad:
        raise refused(transition, "log_prob is cut off from the logits: nothing could be learnt")
    checked: Tensor = found
    return checked


def _tensors(record: Trajectory | Transition) -> dict[str, Tensor]:
    """List the tensors of a record by name."""
    values = {f.name: getattr(record, f.name) for f in fields(record)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
