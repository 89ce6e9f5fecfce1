"""What the checks have in common: how a promise is required, and what is shown to components."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from maskrl.asking import asking, refused
from maskrl.component import Component
from maskrl.grpo.answers import kind
from maskrl.types import Prompt, Stream

PROMPTS = (Prompt("a photo of a red circle"), Prompt("a photo of two blue squares"), Prompt("a star"))
TOLERANCE = 1e-3  # fp32, between batches of different sizes
NOISE = 1e-5  # between two calls with the same input


def require(component: Component | type[Component], promise: bool, complaint: str) -> None:
    """Refuse a component that breaks a promise.

    Raises:
        PluginError: it does.
    """
    if not promise:
        raise refused(component, complaint)


def require_floats(
    component: Component, what: str, values: Any, shape: tuple[int, ...], dtype: torch.dtype | None
) -> None:
    """Require a finite floating-point tensor of a shape, and of a dtype if one is given."""
    fine = isinstance(values, Tensor) and values.shape == shape and values.is_floating_point()
    wanted = "Float" if dtype is None else str(dtype).removeprefix("torch.")
    fine = fine and dtype in (None, values.dtype)
    require(component, fine, f"{what} returned {kind(values)} instead of {wanted} {list(shape)}")
    require(component, bool(values.isfinite().all()), f"{what} returned a number that is not finite")


def require_close(
    component: Component, left: Tensor, right: Tensor, complaint: str, tolerance: float = TOLERANCE
) -> None:
    """Require that two tensors differ by no more than rounding."""
    difference = apart(left, right)
    scale = max(1.0, float(left.detach().abs().max()))
    require(component, difference <= tolerance * scale, f"{complaint} (by {difference:.2g})")


def apart(left: Tensor, right: Tensor) -> float:
    """Return the largest difference of two tensors."""
    return float((left.detach().double() - right.detach().double()).abs().max())


@contextmanager
def quiet(component: Component, what: str) -> Iterator[None]:
    """Require that nothing is drawn from, and nothing done to, PyTorch's global generator and what else is shared."""
    before = torch.get_rng_state()
    with asking(component):
        yield
    same = torch.equal(before, torch.get_rng_state())
    require(component, same, f"{what} uses the global random numbers, not those of a stream")


def require_listed(component: Component, where: str, listed: Sequence[nn.Module]) -> None:
    """Require that the networks that a component holds are among those that it lists, so that they are moved."""
    known = {id(part) for network in listed for part in network.modules()}
    for name, value in vars(component).items():
        held = value.values() if isinstance(value, dict) else value
        for network in held if isinstance(held, list | tuple) else [held]:
            unlisted = isinstance(network, nn.Module) and id(network) not in known
            require(component, not unlisted, f"its network {name!r} is not in {where}")


def pictures(count: int, image_size: tuple[int, int]) -> Tensor:
    """Float [count, 3, H, W] in [0, 1]: noise, each picture lighter than the one before."""
    noise = torch.rand(
        count, 3, *image_size, generator=Stream(0, ("images",)).generator(), dtype=torch.float32
    )
    return noise * torch.linspace(0.3, 1.0, count)[:, None, None, None]
