"""What the looks at all answers have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.component import Component


@contextmanager
def lending(component: Component, what: str, **given: Tensor | None) -> Iterator[None]:
    """Run code of a component that is handed tensors; it raises nothing, and writes into none of them."""
    counted = {  # PyTorch counts how often a tensor was written into, but for those of inference mode
        name: (tensor, tensor._version)
        for name, tensor in given.items()
        if tensor is not None and not tensor.is_inference()
    }
    with asking(component):
        yield
    for name, (tensor, writes) in counted.items():
        if tensor._version != writes:
            raise refused(component, f"{what} changed the {name} that it was handed")


def kind(found: Any) -> str:
    """Say what something is: ``float32 [2, 3]``, or its type."""
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    return type(found).__name__


def as_tensor(component: Component, what: str, found: Any) -> Tensor:
    """Take a tensor, or what one is made of: a list or an array."""
    if isinstance(found, Tensor):
        if found.is_meta or found.layout != torch.strided:
            raise refused(
                component,
                f"{what} returned {kind(found)} without its numbers ({found.device}, {found.layout})",
            )
        return found
    try:
        return torch.tensor(found)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise refused(component, f"{what} returned {kind(found)} that holds no row of numbers") from error


def as_number(component: Component | type[Component], what: str, found: Any) -> float:
    """Take a finite number."""
    try:
        number = float(found)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise refused(component, f"{what} is {_shown(found)}, no number") from error
    if not math.isfinite(number):
        raise refused(component, f"{what} is {number}, which is not finite")
    return number


def _shown(found: Any) -> str:
    return repr(found) if isinstance(found, str) and len(found) < 60 else f"of type {kind(found)}"


def as_pair(component: Component | type[Component], what: str, found: Any) -> tuple[Any, Any]:
    """Take a pair."""
    if not isinstance(found, tuple) or len(found) != 2:
        raise refused(component, f"{what} returned {kind(found)}, not a pair")
    return found
