"""What components answer, where it enters the core: looked at once, and refused with the component's name.

What is plainly meant is taken: a list or an array of numbers for a tensor, another precision for fp32.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.component import Component
from maskrl.interfaces import (
    Condition,
    GroupFilter,
    MaskedGenerator,
    RewardModel,
    StepReducer,
    TransitionProb,
)
from maskrl.types import Prompt, StepIndex, Stream, Trajectory, Transition

TERM = re.compile(r"[A-Za-z0-9_-]+")


def score(reward: RewardModel, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Score B images, Float [B, 3, H, W], with a prompt each: Float [B], fp32, on the images' device, no gradient.

    Raises:
        PluginError: it is no number for each image.
    """
    with asking(reward):
        found = reward.score(images, prompts)
    return _scores(reward, "score", found, images)


def score_terms(
    reward: RewardModel, images: Tensor, prompts: Sequence[Prompt]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Do as :func:`score`, and return as much of every term.

    Raises:
        PluginError: it is no number for each image, or a term's name cannot be a metric's.
    """
    with asking(reward):
        answer = reward.score_terms(images, prompts)
    total, terms = _pair(reward, "score_terms", answer)
    if not isinstance(terms, Mapping):
        raise refused(reward, f"score_terms returned {kind(terms)} for the terms, not a dict")
    for name in terms:
        if not (isinstance(name, str) and TERM.fullmatch(name)):
            raise refused(reward, f"score_terms calls a term {name!r}; use letters, digits, '_' and '-'")
    checked = {name: _scores(reward, f"the term {name!r}", terms[name], images) for name in terms}
    return _scores(reward, "score", total, images), checked


def cost(reward: type[RewardModel], config: Any) -> tuple[int, float]:
    """Ask how many parameters a reward has, and what an image costs in FLOPs.

    Raises:
        PluginError: it is no pair of numbers.
    """
    with asking(reward):
        answer = reward.cost(config)
    parameters, flops = _pair(reward, "cost", answer)
    return int(_number(reward, "the cost in parameters", parameters)), _number(
        reward, "the cost in FLOPs", flops
    )


def keep(group_filter: GroupFilter, rewards: Tensor) -> Tensor:
    """Judge a round, Float [P, G]: Bool [P], on the CPU.

    Raises:
        PluginError: it is no decision for each group.
    """
    with asking(group_filter):
        found = group_filter.keep(rewards)
    kept = _tensor(group_filter, "keep", found)
    if kept.dtype != torch.bool or kept.shape != rewards.shape[:1]:
        raise refused(group_filter, f"keep returned {kind(kept)} instead of Bool [{len(rewards)}]")
    return kept.cpu()


def metrics(group_filter: GroupFilter) -> dict[str, float]:
    """Ask for a filter's metrics. Their names begin with ``filter_``: it is put before those that do not.

    Raises:
        PluginError: one is no finite number, or two get the same name.
    """
    with asking(group_filter):
        found = group_filter.metrics()
    named: dict[str, float] = {}
    for name, value in found.items():
        full = name if name.startswith("filter_") else f"filter_{name}"
        if full in named:
            raise refused(group_filter, f"metrics holds {full!r} twice, with and without 'filter_'")
        named[full] = _number(group_filter, f"the metric {name!r}", value)
    return named


def filter_state(group_filter: GroupFilter) -> dict[str, Any]:
    """Ask for what a filter wants saved.

    Raises:
        PluginError: it cannot be saved as JSON.
    """
    with asking(group_filter):
        state = group_filter.state_dict()
    if not isinstance(state, Mapping):
        raise refused(group_filter, f"state_dict returned {kind(state)}, not a dict")
    try:
        json.dumps(state, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise refused(group_filter, f"state_dict cannot be saved as JSON: {error}") from error
    return dict(state)


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


def train_steps(reducer: StepReducer, num_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
    """Ask which of T steps teach: Long [k] in [0, T), each once, and Float [k] >= 0, both on the CPU.

    Raises:
        PluginError: it is something else.
    """
    with asking(reducer):
        answer = reducer.train_steps(num_steps, stream)
    first, second = _pair(reducer, "train_steps", answer)
    steps, weights = _tensor(reducer, "train_steps", first), _tensor(reducer, "train_steps", second)
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
    return steps.to("cpu", torch.long), weights


def scored(transition: TransitionProb, trajectory: Trajectory, stream: Stream) -> Trajectory:
    """Ask for the transitions to score, of as many images.

    Raises:
        PluginError: it is something else.
    """
    with asking(transition):
        found = transition.scored(trajectory, stream)
    if not isinstance(found, Trajectory) or found.num_images != trajectory.num_images:
        raise refused(transition, f"scored returned no Trajectory of {trajectory.num_images} images")
    return found


def log_prob(
    transition: TransitionProb, logits: Tensor, taken: Transition, call: Callable[..., Any] | None = None
) -> Tensor:
    """Score B transitions, Float [M, V]: Float [B], with a gradient where the logits have one.

    ``call`` is called in the place of ``transition.log_prob``: a checkpoint of its activations.

    Raises:
        PluginError: it is something else.
    """
    with asking(transition):
        found = (call or transition.log_prob)(logits, taken)
    size = len(taken.state)
    precise = isinstance(found, Tensor) and found.dtype in (torch.float32, torch.float64)
    if not precise or found.shape != (size,):
        raise refused(transition, f"log_prob returned {kind(found)} instead of float32 [{size}]")
    if torch.is_grad_enabled() and logits.requires_grad and not found.requires_grad:
        raise refused(transition, "log_prob is cut off from the logits: nothing could be learnt")
    checked: Tensor = found
    return checked


def encode(generator: MaskedGenerator, prompts: Sequence[Prompt]) -> Condition:
    """Ask for a condition of B prompts."""
    with asking(generator):
        return generator.encode(prompts)


def prefill(generator: MaskedGenerator, condition: Condition) -> Condition:
    """Ask for what depends on the prompts and the weights alone."""
    with asking(generator):
        return generator.prefill(condition)


def logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    guidance: Tensor,
    positions: Tensor,
) -> Tensor:
    """Ask for the logits at M positions, Bool [B, N], with a weight of guidance for each row: Float [M, V].

    Raises:
        PluginError: it is something else.
    """
    with asking(generator):
        found = generator.logits(tokens, condition, step, guidance, positions=positions)
    size = generator.spec.num_codes
    good = isinstance(found, Tensor) and found.is_floating_point() and found.dim() == 2
    if not good or found.shape[1] != size:
        raise refused(generator, f"logits at some positions are {kind(found)}, not Float [M, {size}]")
    return found


def confidence(generator: MaskedGenerator, logits: Tensor, proposals: Tensor, step: StepIndex) -> Tensor:
    """Ask how good M proposals are, Float [M, V] and Long [M]: Float [M].

    Raises:
        PluginError: it is something else.
    """
    with asking(generator):
        found = generator.confidence(logits, proposals, step)
    good = isinstance(found, Tensor) and found.is_floating_point() and found.shape == proposals.shape
    if not good or not found.isfinite().all():
        raise refused(
            generator, f"confidence returned {kind(found)} instead of finite Float {list(proposals.shape)}"
        )
    checked: Tensor = found
    return checked


def decode(generator: MaskedGenerator, tokens: Tensor, condition: Condition) -> Tensor:
    """Paint B images, Long [B, N]: Float [B, 3, H, W] in [0, 1], fp32.

    Raises:
        PluginError: it is something else.
    """
    with asking(generator):
        found = generator.decode(tokens, condition)
    shape = (len(tokens), 3, *generator.spec.image_size)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != shape:
        raise refused(generator, f"decode returned {kind(found)} instead of Float {list(shape)}")
    low, high = (float(edge) for edge in found.aminmax())
    if not (low >= 0 and high <= 1):
        raise refused(generator, f"decode returned pixels in [{low:g}, {high:g}], not in [0, 1]")
    return found.detach().float()


def kind(found: Any) -> str:
    """Say what something is: ``float32 [2, 3]``, or its type."""
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    return type(found).__name__


def _scores(reward: RewardModel, what: str, found: Any, images: Tensor) -> Tensor:
    scores, size = _tensor(reward, what, found), len(images)
    if scores.shape != (size,) or scores.is_complex():
        raise refused(
            reward,
            f"{what} returned {kind(scores)} for {size} images; wanted is one number each: Float [{size}]",
        )
    return scores.detach().to(images.device, torch.float32)


def _tensor(component: Component, what: str, found: Any) -> Tensor:
    if isinstance(found, Tensor):
        return found
    try:
        return torch.tensor(found)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise refused(component, f"{what} returned {kind(found)} that holds no row of numbers") from error


def _number(component: Component | type[Component], what: str, found: Any) -> float:
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError) as error:
        raise refused(component, f"{what} is {found!r}, no number") from error
    if not math.isfinite(number):
        raise refused(component, f"{what} is {number}, which is not finite")
    return number


def _pair(component: Component | type[Component], what: str, found: Any) -> tuple[Any, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise refused(component, f"{what} returned {kind(found)}, not a pair")
    return found
