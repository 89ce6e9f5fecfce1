"""Gradients that several threads of a CPU add up are added up in one order: the same each time, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import deterministic

_FILLING: Any = deterministic  # its setting is a property of the module, which type checkers do not see


@contextmanager
def in_order(device: torch.device) -> Iterator[None]:
    """Let PyTorch choose, on a CPU, what sums in one order; elsewhere, where that may be slow or missing, as it was.

    Else threads add to the gradient of a row that many positions share (an embedding) in the order in which they come,
    and a run that is made again, or resumed, differs from the second update on.
    """
    if device.type != "cpu":
        yield
        return
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fill = _FILLING.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)  # what a generator needs may have no such way
    _FILLING.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _FILLING.fill_uninitialized_memory = fill
