"""Positions of a batch of rows, found once, and values packed there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Places:
    """Positions of B rows, M of them, and how to pick values there and put them back.

    Attributes:
        mask: Bool [B, N].
        rows: Long [M], row by row; ``columns``: Long [M].
    """

    mask: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, mask: Tensor, count: int | None = None) -> Places:
        """Find them: Bool [B, N]; if ``count`` says how many they are, the host need not wait for the device."""
        found = mask.nonzero() if count is None else torch.nonzero_static(mask, size=count)
        return cls(mask, found[:, 0], found[:, 1])

    def pack(self, values: Tensor) -> Tensor:
        """Pick: [B, N, ...] -> [M, ...]."""
        return values[self.rows, self.columns]

    def unpack(self, packed: Tensor, fill: float) -> Tensor:
        """Put back: [M, ...] -> [B, N, ...], ``fill`` elsewhere. Differentiable."""
        more = packed.shape[1:]
        blank = packed.new_full((*self.mask.shape, *more), fill)
        return blank.masked_scatter(self.mask.view(*self.mask.shape, *(1 for _ in more)), packed)
