"""The processes that make an update together, and how each does as much as the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


class Peers(Protocol):
    """This process among the ``world_size`` that paint a batch together, ``rank`` in [0, world_size)."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate along dim 0 in rank order; the same shape on every process."""

    def sum(self, value: Tensor) -> Tensor:
        """Add up over the processes."""


class Process(Peers, Protocol):
    """This process among those that make an update together."""

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients, in place: their *sum*, not their mean."""

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Concatenate lists of plain objects in rank order; they may differ in length."""

    def wait(self) -> None:
        """Wait until every process is here."""


@dataclass(frozen=True)
class SingleProcess:
    """The only process."""

    rank: int = 0
    world_size: int = 1

    def gather(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def sum(self, value: Tensor) -> Tensor:
        """Return the value."""
        return value

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Leave them as they are."""

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Return the values."""
        return list(values)

    def wait(self) -> None:
        """Nobody is waited for."""


def pad_to_equal_count(wanted: Tensor, process: Peers) -> list[int]:
    """Choose this process's groups so that every process runs as many.

    Args:
        wanted: Bool [S], over the groups of all processes in slot order.
        process: this one.

    Returns:
        Indices in [0, S / world_size): the wanted ones in order, then as many others as keep step.
    """
    shares = wanted.view(process.world_size, -1)
    most = int(shares.sum(dim=1).max())
    order: list[int] = shares[process.rank].long().argsort(descending=True, stable=True)[:most].tolist()
    return order


def on_any(process: Peers, found: bool, device: torch.device) -> bool:
    """Say whether something was found on any process: all of them then refuse together, and none waits for others."""
    return bool(process.sum(torch.tensor(float(found), device=device)))
