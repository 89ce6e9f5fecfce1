"""What a component must keep to, as checks that a plugin's own tests call: one function per interface.

Each takes a built component and raises :class:`maskrl.errors.PluginError` at the first broken promise::

    def test_contract():
        check_reward(MyReward(MyReward.Config()))
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrl.component import Component, ComponentConfig
from maskrl.errors import PluginError
from maskrl.grpo.rollout import Unmasked, unmask
from maskrl.interfaces import (
    Detector,
    GroupFilter,
    MaskedGenerator,
    PromptSet,
    RewardModel,
    StepReducer,
    TransitionProb,
)
from maskrl.types import GeneratorSpec, Prompt, StepIndex, Stream, Trajectory

PROMPTS = (Prompt("a photo of a red circle"), Prompt("a photo of two blue squares"))
TOLERANCE = 1e-3  # fp32, between batches of different sizes


def check_class(component: type[Component]) -> None:
    """Check what needs no instance: the ``Config`` refuses unknown keys, and ``paths`` names settings of it.

    Raises:
        PluginError: it does not.
    """
    config = component.Config
    _require(component, issubclass(config, ComponentConfig), "its Config is no ComponentConfig")
    _require(component, config.model_config.get("extra") == "forbid", "its Config accepts unknown keys")
    _require(component, "name" not in config.model_fields, "its Config has 'name', which names the component")
    for key in component.paths:
        _require(component, key in config.model_fields, f"'paths' names {key!r}, which its Config has not")


def check_reward(
    component: RewardModel, prompts: Sequence[Prompt] = PROMPTS, image_size: tuple[int, int] = (64, 64)
) -> None:
    """Check shape, dtype and finiteness, and that a score depends on its own image and prompt alone.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.RewardModel`.
    """
    check_class(type(component))
    images = torch.rand(len(prompts), 3, *image_size, generator=Stream(0, ("images",)).generator())
    given = images.clone()
    scores = component.score(images, prompts)
    _require_floats(component, "score", scores, (len(prompts),), torch.float32)
    _require(component, not scores.requires_grad, "score returned a tensor with a gradient")
    _require(component, torch.equal(images, given), "score changed the images")
    backwards = component.score(images.flip(0), list(reversed(prompts))).flip(0)
    _require_close(component, scores, backwards, "the score of an image depends on the rest of its batch")
    alone = torch.cat([component.score(images[i : i + 1], [prompts[i]]) for i in range(len(prompts))])
    _require_close(component, scores, alone, "the score of an image depends on the rest of its batch")


def check_transition(component: TransitionProb, num_tokens: int = 6, num_codes: int = 5) -> None:
    """Check log-probabilities and their gradients on recorded steps, at the policy that took them and off it.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.TransitionProb`.
    """
    check_class(type(component))
    recorded = _recorded(num_images=3, num_tokens=num_tokens, num_codes=num_codes)
    trajectory = component.scored(recorded, Stream(1))
    again = component.scored(recorded, Stream(1))
    _require(
        component, trajectory.num_images == recorded.num_images, "scored returned another number of images"
    )
    _require(
        component, torch.equal(trajectory.state, again.state), "scored draws noise that is not the stream's"
    )
    for step in range(trajectory.num_steps):
        for dtype in (torch.float32, torch.float64):
            _check_log_prob(component, trajectory, step, num_codes, dtype)


def check_filter(component: GroupFilter, groups: int = 8, group_size: int = 4) -> None:
    """Check decisions and metrics, and that a filter restored from its saved state decides the same.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.GroupFilter`.
    """
    check_class(type(component))
    rewards = torch.rand(3, groups, group_size, generator=Stream(0, ("rewards",)).generator())
    for round_rewards in rewards[:2]:
        kept = component.keep(round_rewards)
        fine = kept.dtype == torch.bool and kept.shape == (groups,)
        _require(component, fine, f"keep returned {_kind(kept)} instead of Bool [{groups}]")
    state = _through_json(component)
    restored = type(component)(component.config)
    restored.load_state_dict(state)
    same = torch.equal(component.keep(rewards[2]), restored.keep(rewards[2]))
    _require(component, same, "a filter restored from state_dict decides otherwise")
    numbers = all(isinstance(value, float) for value in component.metrics().values())
    _require(component, numbers, "metrics holds something that is no float")


def check_reducer(component: StepReducer, num_steps: Sequence[int] = (1, 2, 3, 8, 50)) -> None:
    """Check for several T that steps are distinct and inside the rollout, and weights finite and >= 0.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.StepReducer`.
    """
    check_class(type(component))
    for wanted in num_steps:
        steps_made = component.rollout_steps(wanted)
        _require(component, 1 <= steps_made <= wanted, f"rollout_steps({wanted}) is {steps_made}")
        steps, weights = component.train_steps(steps_made, Stream(0))
        again, _ = component.train_steps(steps_made, Stream(0))
        _require(component, torch.equal(steps, again), "train_steps draws noise that is not the stream's")
        _check_steps(component, steps, weights, steps_made)


def check_generator(component: MaskedGenerator, prompts: Sequence[Prompt] = PROMPTS) -> None:
    """Check the spec, logits (packed, batched, guided, differentiable), decoding, and saving and loading.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.MaskedGenerator`.
    """
    check_class(type(component))
    _check_spec(component, component.spec)
    _require(
        component, not component.module.training, "module is in train(): dropout would falsify the ratio"
    )
    _check_logits(component, prompts)
    _check_decode(component, prompts)
    if "checkpoint" in type(component).Config.model_fields:
        _check_save(component, prompts)


def check_detector(component: Detector, image_size: tuple[int, int] = (64, 64)) -> None:
    """Check that what is found on noise and on white has a known class, a box within the image and a score.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.Detector`.
        TrainingError: it fails its own self-test.
    """
    check_class(type(component))
    component.self_test()
    _require(component, bool(component.label.strip()), "it has no label for the numbers that rest on it")
    noise = torch.rand(3, *image_size, generator=Stream(0, ("images",)).generator())
    for image in (noise, torch.ones(3, *image_size)):
        for name, found in component.detect(image).items():
            _require(
                component, name in component.classes, f"detect found {name!r}, which is not in 'classes'"
            )
            for detection in found:
                x1, y1, x2, y2 = detection.box
                inside = 0 <= x1 < x2 <= image_size[1] and 0 <= y1 < y2 <= image_size[0]
                _require(component, inside, f"detect returned a box outside the image: {detection.box}")
                _require(component, 0 <= detection.score <= 1, f"detect returned the score {detection.score}")
                color = component.color(image, detection, name)
                _require(component, color in component.colors, f"color returned {color!r}, not in 'colors'")


def check_prompts(component: PromptSet) -> None:
    """Check that there are prompts, each with a text, in the same order every time.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.PromptSet`.
    """
    check_class(type(component))
    prompts = component.prompts()
    _require(component, bool(prompts), "it holds no prompts")
    _require(component, all(prompt.text.strip() for prompt in prompts), "it holds a prompt without a text")
    _require(component, prompts == component.prompts(), "its prompts differ from call to call")


def _recorded(num_images: int, num_tokens: int, num_codes: int) -> Trajectory:
    """Sample a trajectory that reveals one position a step, from logits that :func:`_logits` gives again."""
    mask_id, taus = num_codes, torch.linspace(1.0, 0.0, num_tokens)
    state = torch.full((num_images, num_tokens), mask_id)
    steps: list[Unmasked] = []
    for t, tau in enumerate(taus.tolist()):
        uniform = torch.rand(num_images, 2, num_tokens, generator=Stream(0, ("noise", t)).generator())
        logits = _logits(t, state == mask_id, num_codes, torch.float32)
        steps.append(unmask(logits, state, uniform, 1, tau, mask_id))
        state = torch.where(steps[-1].reveal_rank >= 0, steps[-1].proposals, state)
    record = {f.name: torch.stack([getattr(step, f.name) for step in steps], dim=1) for f in fields(Unmasked)}
    return Trajectory(tau=taus, tokens=state, mask_id=mask_id, **record)


def _logits(step: int, masked: Tensor, num_codes: int, dtype: torch.dtype) -> Tensor:
    """Bool [B, N] -> Float [M, V]: logits that depend on step, row and position."""
    random = torch.randn(*masked.shape, num_codes, generator=Stream(0, ("logits", step)).generator())
    return random.to(dtype)[masked]


def _check_log_prob(
    component: TransitionProb, trajectory: Trajectory, step: int, num_codes: int, dtype: torch.dtype
) -> None:
    rows = torch.arange(trajectory.num_images)
    transition = trajectory.transitions(rows, torch.full_like(rows, step))
    on_policy = _logits(step, transition.masked, num_codes, dtype)
    for logits in (on_policy, on_policy * 0.5):
        logits = logits.requires_grad_()
        logp = component.log_prob(logits, transition)
        _require_floats(component, "log_prob", logp, (len(rows),), dtype)
        (gradient,) = torch.autograd.grad(logp.sum(), logits)
        _require(component, bool(gradient.isfinite().all()), "the gradient of log_prob is not finite")
        _require(component, bool(gradient.any()), "the gradient of log_prob is 0")
        alone = [
            _score_alone(component, trajectory, row, step, logits, transition.masked)
            for row in range(len(rows))
        ]
        _require_close(component, logp, torch.cat(alone), "the log_prob of a row depends on the other rows")


def _score_alone(
    component: TransitionProb, trajectory: Trajectory, row: int, step: int, logits: Tensor, masked: Tensor
) -> Tensor:
    mine = torch.zeros_like(masked)
    mine[row] = True
    return component.log_prob(
        logits[mine[masked]], trajectory.transitions(torch.tensor([row]), torch.tensor([step]))
    )


def _through_json(component: GroupFilter) -> Any:
    try:
        return json.loads(json.dumps(component.state_dict(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _broken(component, f"state_dict cannot be saved as JSON: {error}") from error


def _check_steps(component: StepReducer, steps: Tensor, weights: Tensor, num_steps: int) -> None:
    _require(
        component, steps.dtype == torch.long and steps.dim() == 1, f"train_steps returned {_kind(steps)}"
    )
    _require(
        component, 1 <= len(steps) == len(set(steps.tolist())), "train_steps names no step, or repeats one"
    )
    inside = int(steps.min()) >= 0 and int(steps.max()) < num_steps
    _require(component, inside, f"train_steps names a step outside [0, {num_steps})")
    _require_floats(component, "train_steps' weights", weights, (len(steps),), torch.float32)
    _require(component, bool((weights >= 0).all()), "train_steps returned a negative weight")


def _check_spec(component: MaskedGenerator, spec: GeneratorSpec) -> None:
    _require(
        component, spec.num_tokens >= 1 and spec.num_codes >= 2, "spec has no tokens, or fewer than two codes"
    )
    _require(component, not 0 <= spec.mask_id < spec.num_codes, f"spec.mask_id = {spec.mask_id} is a code")
    fits = spec.grid is None or math.prod(spec.grid) == spec.num_tokens
    _require(component, fits, f"spec.grid = {spec.grid} does not hold {spec.num_tokens} tokens")
    steps = spec.sampler.num_steps
    _require(
        component, 1 <= steps <= spec.num_tokens, f"spec.sampler.num_steps = {steps} is not in 1..num_tokens"
    )


def _canvas(component: MaskedGenerator, batch: int) -> tuple[Tensor, StepIndex]:
    """Half-finished canvases: Long [B, N], the first half codes; and step 1 of the published number."""
    spec, device = component.spec, next(component.module.parameters()).device
    tokens = torch.full((batch, spec.num_tokens), spec.mask_id)
    shape = (batch, spec.num_tokens // 2)
    codes = torch.randint(spec.num_codes, shape, generator=Stream(0, ("codes",)).generator())
    tokens[:, : spec.num_tokens // 2] = codes
    t = torch.full((batch,), min(1, spec.sampler.num_steps - 1), device=device)
    return tokens.to(device), StepIndex(t, spec.sampler.num_steps)


def _check_logits(component: MaskedGenerator, prompts: Sequence[Prompt]) -> None:
    spec, condition, batch = component.spec, component.encode(prompts), len(prompts)
    tokens, step = _canvas(component, batch)
    masked = tokens == spec.mask_id
    for guidance in (0.0, 1.5):
        full = component.logits(tokens, condition, step, guidance)
        _require_floats(component, "logits", full, (batch, spec.num_tokens, spec.num_codes), None)
        packed = component.logits(tokens, condition, step, guidance, positions=masked)
        _require_floats(component, "packed logits", packed, (int(masked.sum()), spec.num_codes), None)
        _require_close(component, packed, full[masked], "logits at 'positions' differ from the full ones")
        first = condition.select(torch.tensor([0]))
        alone = component.logits(tokens[:1], first, StepIndex(step.t[:1], step.num_steps), guidance)
        _require_close(component, alone, full[:1], "the logits of a row depend on the other rows")
        weights = [p for p in component.module.parameters() if p.requires_grad]
        grads = torch.autograd.grad(packed.logsumexp(-1).sum(), weights, allow_unused=True)
        moved = any(bool(gradient.any()) for gradient in grads if gradient is not None)
        _require(component, moved, f"no gradient reaches module at guidance {guidance}")


def _check_decode(component: MaskedGenerator, prompts: Sequence[Prompt]) -> None:
    spec, condition = component.spec, component.encode(prompts)
    tokens = _canvas(component, len(prompts))[0] % spec.num_codes
    images = component.decode(tokens, condition)
    _require_floats(component, "decode", images, (len(prompts), 3, *spec.image_size), None)
    _require(component, not images.requires_grad, "decode returned a tensor with a gradient")
    low, high = float(images.min()), float(images.max())
    _require(component, low >= 0 and high <= 1, f"decode returned pixels in [{low}, {high}], not in [0, 1]")


def _check_save(component: MaskedGenerator, prompts: Sequence[Prompt]) -> None:
    tokens, step = _canvas(component, len(prompts))
    with tempfile.TemporaryDirectory() as parent, torch.no_grad():
        folder = str(Path(parent) / "generator")
        component.save(folder)
        loaded = type(component)(component.config.model_copy(update={"checkpoint": folder}))
        loaded.module.to(tokens.device)
        first = component.logits(tokens, component.encode(prompts), step, 0.0)
        second = loaded.logits(tokens, loaded.encode(prompts), step, 0.0)
    _require_close(
        component, first, second, "what 'save' wrote gives other logits when loaded as 'checkpoint'"
    )


def _require_floats(
    component: Component, what: str, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None
) -> None:
    """Require a finite floating-point tensor of a shape, and of a dtype if one is given."""
    fine = values.shape == shape and values.is_floating_point() and dtype in (None, values.dtype)
    kind = "Float" if dtype is None else str(dtype).removeprefix("torch.")
    _require(component, fine, f"{what} returned {_kind(values)} instead of {kind} {list(shape)}")
    _require(component, bool(values.isfinite().all()), f"{what} returned a number that is not finite")


def _require_close(component: Component, left: Tensor, right: Tensor, complaint: str) -> None:
    difference = float((left - right).detach().abs().max())
    scale = max(1.0, float(left.detach().abs().max()))
    _require(component, difference <= TOLERANCE * scale, f"{complaint} (by {difference:.2g})")


def _require(component: Component | type[Component], promise: bool, complaint: str) -> None:
    if not promise:
        raise _broken(component, complaint)


def _broken(component: Component | type[Component], complaint: str) -> PluginError:
    found = component if isinstance(component, type) else type(component)
    return PluginError(f"{found.__module__}:{found.__qualname__} breaks its contract: {complaint}")


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
