"""The Halton sequence: points that spread evenly over a square, however many of them there are."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def radical_inverse(index: Tensor, base: int) -> Tensor:
    """Mirror the digits of whole numbers at the point: Long [K] >= 0 -> Float [K] in [0, 1), fp64."""
    left, scale = index.clone(), 1.0
    value = torch.zeros(index.shape, dtype=torch.float64)
    while left.any():
        scale /= base
        value += scale * (left % base)
        left //= base
    return value


@cache
def halton_order(rows: int, columns: int) -> Tensor:
    """Number the cells of a grid in the order in which the sequence first meets them: Long [rows * columns].

    The points are the radical inverses of 1, 2, 3 ... to base 2 across the rows and to base 3 across the columns.
    """
    cells, count = rows * columns, rows * columns
    while True:  # the sequence comes to every cell at last: it is dense
        count *= 2
        index = torch.arange(1, count + 1)
        row = (radical_inverse(index, 2) * rows).long()
        column = (radical_inverse(index, 3) * columns).long()
        met = row * columns + column
        first = torch.full((cells,), count).scatter_reduce(0, met, torch.arange(count), "amin")
        if bool((first < count).all()):
            return first.argsort().argsort()
