"""Weights are cast to bf16 once for as long as they do not move, not in every pass of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


def casting_once(device: torch.device) -> AbstractContextManager[object]:
    """Keep what an autocast inside casts of trained weights until the end of the block, in which no weight may move.

    Autocast forgets its copies when the outermost block ends; this is one around it that changes nothing else. A copy
    that was made without a gradient must not meet a pass with one: so a block is either all of a rollout or all of a
    pass of the loss.
    """
    kind = device.type
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))
