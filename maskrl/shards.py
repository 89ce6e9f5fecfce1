"""Tensors of which every process holds a part (torch's DTensor), beside plain ones; asked without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor, which every process must ask for together; a plain one as it is."""
    sharded: Any = tensor
    return cast(Tensor, sharded.full_tensor()) if is_part(tensor) else tensor


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor: of a plain one everything."""
    sharded: Any = tensor
    return cast(Tensor, sharded.to_local()) if is_part(tensor) else tensor


def is_part(tensor: Tensor) -> bool:
    """Tell whether the other processes hold the rest of a tensor."""
    return hasattr(tensor, "full_tensor")


def are_parts(tensors: Iterable[Tensor]) -> bool:
    """Tell it of any tensor."""
    return any(map(is_part, tensors))


def divided_as(tensor: Tensor, other: Tensor) -> Tensor:
    """Divide all of a tensor, which every process has, as another one is divided; beside a plain one it stays whole."""
    if not is_part(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # slow to import

    sharded: Any = other
    here = tensor.to(other.device)
    return distribute_tensor(here, sharded.device_mesh, sharded.placements, src_data_rank=None)
