"""What generators answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.grpo.answers.common import kind, lending
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.places import Places
from maskrl.types import Prompt, StepIndex


def encode(generator: MaskedGenerator, prompts: Sequence[Prompt]) -> Condition:
    """Ask for a condition of B prompts.

    Raises:
        PluginError: it is something else.
    """
    with asking(generator):
        found = generator.encode(prompts)
    return _condition(generator, "encode", found)


def prefill(generator: MaskedGenerator, condition: Condition) -> Condition:
    """Ask for what depends on the prompts and the weights alone.

    Raises:
        PluginError: it is something else.
    """
    with asking(generator):
        found = generator.prefill(condition)
    return _condition(generator, "prefill", found)


def _condition(generator: MaskedGenerator, what: str, found: Any) -> Condition:
    if not isinstance(found, Condition):
        raise refused(generator, f"{what} returned {kind(found)}, which is no Condition")
    return found


def logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    guidance: Tensor,
    places: Places,
) -> Tensor:
    """Ask for the logits at M places, with a weight of guidance for each row: Float [M, V].

    Raises:
        PluginError: it is something else.
    """
    shape = (len(places.rows), generator.spec.num_codes)
    given = {"tokens": tokens, "step": step.t, "guidance": guidance, "positions": places.mask}
    with lending(generator, "logits", **given):
        found = generator.logits(tokens, condition, step, guidance, positions=places.mask)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != shape:
        raise refused(generator, f"logits at some positions are {kind(found)}, not Float {list(shape)}")
    if torch.is_grad_enabled() and not found.requires_grad and _is_trained(generator):
        raise refused(generator, "logits are cut off from the parameters of module: nothing could be learnt")
    return found


def _is_trained(generator: MaskedGenerator) -> bool:
    return any(parameter.requires_grad for parameter in generator.module.parameters())


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
    with lending(generator, "decode", tokens=tokens):
        found = generator.decode(tokens, condition)
    shape = (len(tokens), 3, *generator.spec.image_size)
    if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != shape:
        raise refused(generator, f"decode returned {kind(found)} instead of Float {list(shape)}")
    low, high = (float(edge) for edge in found.aminmax())
    if not (low >= 0 and high <= 1):
        raise refused(generator, f"decode returned pixels in [{low:g}, {high:g}], not in [0, 1]")
    return found.detach().float()
