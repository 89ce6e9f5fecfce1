"""What a generator promises of its weights: they are saved and loaded; saving memory changes nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from maskrl.errors import RecipeError
from maskrl.interfaces import MaskedGenerator
from maskrl.testing.promises import NOISE, apart, require, require_close
from maskrl.testing.scene import WEIGHT, Scene
from maskrl.types import Stream


@torch.no_grad()
def check_save(scene: Scene) -> None:
    """Move the weights, save, load: what is loaded is what was moved, not what the generator was built from."""
    component = scene.component
    before = scene.logits(WEIGHT)
    with tempfile.TemporaryDirectory() as parent, _moved(component.module):
        fresh = Scene(component, scene.prompts)
        moved = fresh.logits(WEIGHT)
        stale = "a condition that was encoded before the weights moved has other logits than a new one"
        require_close(component, moved, scene.logits(WEIGHT), stale)
        folder = Path(parent) / "generator"
        component.save(str(folder))
        inside = [path.name for path in Path(parent).iterdir()] == ["generator"]
        require(component, inside, "save wrote no folder, or beside it")
        require_close(component, moved, fresh.logits(WEIGHT), "save changed the weights", NOISE)
        loaded = _load(component, str(folder))
        found = Scene(loaded, scene.prompts).logits(WEIGHT)
    complaint = "what 'save' wrote gives other logits when loaded"
    require_close(component, moved, found, complaint)
    trained, kept = apart(moved, before), apart(moved, found)
    require(
        component,
        kept <= 0.1 * trained,
        f"{complaint}: trained weights are lost, by {kept:.2g} of {trained:.2g}",
    )


def check_checkpointing(scene: Scene) -> None:
    """Activation checkpointing, where there is any, changes neither logits nor gradients."""
    component = scene.component
    again = _placed(type(component)(component.config), component)
    try:
        again.checkpoint_activations()
    except RecipeError:  # it cannot
        return
    plain, less = (_logits_and_gradients(Scene(one, scene.prompts)) for one in (component, again))
    for left, right in zip(plain, less, strict=True):
        require_close(component, left, right, "checkpoint_activations changes logits or gradients")


@contextmanager
def _moved(module: nn.Module) -> Iterator[None]:
    """Give a network other weights for a while."""
    trained = [p for p in module.parameters() if p.requires_grad]
    before = [p.clone() for p in trained]
    for index, parameter in enumerate(trained):
        noise = torch.randn(parameter.shape, generator=Stream(0, ("moved", index)).generator())
        size = 0.1 * parameter.abs().mean() + 1e-3
        parameter.add_(size * noise.to(parameter.device, parameter.dtype))
    try:
        yield
    finally:
        for parameter, old in zip(trained, before, strict=True):
            parameter.copy_(old)


def _load(component: MaskedGenerator, folder: str) -> MaskedGenerator:
    settings = type(component).saved_settings(folder)
    known = type(component).Config.model_fields
    for key in settings:
        require(component, key in known, f"saved_settings names {key!r}, which its Config has not")
    values = {
        key: known[key].get_default(call_default_factory=True) if value is None else value
        for key, value in settings.items()
    }
    config = type(component).Config.model_validate({**dict(component.config), **values})
    return _placed(type(component)(config), component)


def _placed(new: MaskedGenerator, like: MaskedGenerator) -> MaskedGenerator:
    device = next(like.module.parameters()).device
    for network in (new.module, *new.frozen):
        network.to(device)
    return new


def _logits_and_gradients(scene: Scene) -> list[Tensor]:
    logits = scene.logits(WEIGHT, positions=scene.masked)
    weights = [p for p in scene.component.module.parameters() if p.requires_grad]
    grads = torch.autograd.grad(logits.logsumexp(-1).sum(), weights, allow_unused=True)
    return [logits, *(grad for grad in grads if grad is not None)]
