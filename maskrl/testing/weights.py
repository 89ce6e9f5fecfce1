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
from maskrl.testing.scene import Scene
from maskrl.types import Stream


@torch.no_grad()
def check_save(scene: Scene) -> None:
    """Move the weights, save, load: what is loaded is what was moved, not what the generator was built from."""
    component, weight = scene.component, scene.weight
    before = scene.logits(weight)
    component.prefill(scene.condition)  # what it keeps of these weights is stale once they move
    with tempfile.TemporaryDirectory() as parent, moved(component.module):
        fresh = scene.of(component)
        learnt = fresh.logits(weight)
        stale = "a condition that was encoded before the weights moved has other logits than a new one"
        require_close(component, learnt, scene.logits(weight), stale)
        filled = fresh.given(component.prefill(fresh.condition)).logits(weight)
        stale = "'prefill' after the weights moved gives the logits of the weights before"
        require_close(component, learnt, filled, stale)
        folder = Path(parent) / "generator"
        component.save(str(folder))
        inside = [path.name for path in Path(parent).iterdir()] == ["generator"]
        require(component, inside, "save wrote no folder, or beside it")
        require_close(component, learnt, fresh.logits(weight), "save changed the weights", NOISE)
        loaded = _load(component, str(folder))
        found = scene.of(loaded).logits(weight)
    complaint = "what 'save' wrote gives other logits when loaded"
    require_close(component, learnt, found, complaint, NOISE)  # the same machine, the same shapes
    way, lost = apart(learnt, before), apart(learnt, found)
    said = f"{complaint}: trained weights are lost, by {lost:.2g} of {way:.2g}"
    require(component, lost <= 0.1 * way, said)


def check_checkpointing(scene: Scene) -> None:
    """Activation checkpointing, where there is any, changes neither logits nor gradients."""
    component = scene.component
    again = _placed(type(component)(component.config), component)
    try:
        again.checkpoint_activations()
    except RecipeError:  # it cannot
        return
    plain, less = (_logits_and_gradients(scene.of(one)) for one in (component, again))
    for left, right in zip(plain, less, strict=True):
        require_close(component, left, right, "checkpoint_activations changes logits or gradients")


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that training moves."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def directions(module: nn.Module) -> list[Tensor]:
    """Make a direction for each trained parameter, a tenth of its weights' size."""
    return [
        _noise(p, index) * (0.1 * p.detach().abs().mean() + 1e-3) for index, p in enumerate(trained(module))
    ]


@contextmanager
def moved(module: nn.Module, way: float = 1.0) -> Iterator[None]:
    """Give a network other weights for a while: some way along :func:`directions`."""
    with _kept(module), torch.no_grad():
        for parameter, direction in zip(trained(module), directions(module), strict=True):
            parameter.add_(way * direction)
        yield


@contextmanager
def awake(module: nn.Module) -> Iterator[None]:
    """Fill for a while the layers that begin at zero, as the last one of many networks does: it would say nothing."""
    with _kept(module):
        with torch.no_grad():
            for index, parameter in enumerate(trained(module)):
                if parameter.ndim > 1 and not parameter.any():
                    parameter.copy_(0.1 * _noise(parameter, index))
        yield


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    before = [parameter.detach().clone() for parameter in trained(module)]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(trained(module), before, strict=True):
                parameter.copy_(old)


def _noise(parameter: Tensor, index: int) -> Tensor:
    drawn = torch.randn(
        parameter.shape, generator=Stream(0, ("moved", index)).generator(), dtype=torch.float32
    )
    return drawn.to(parameter.device, parameter.dtype)


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
    logits = scene.logits(scene.weight, positions=scene.masked)
    weights = trained(scene.component.module)
    grads = torch.autograd.grad(logits.logsumexp(-1).sum(), weights, allow_unused=True)
    return [logits, *(grad for grad in grads if grad is not None)]
