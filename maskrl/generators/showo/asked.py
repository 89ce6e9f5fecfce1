"""Where the last layer of Show-o is asked: its queries, and what follows attention, are computed there alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EDGE = 1  # <|soi|> stands before the codes, <|eoi|> behind them


@dataclass(frozen=True)
class Asked:
    """M positions of B rows of images, each of L ids; two of the M may be the same.

    Attributes:
        places: Long [M] in [0, B * L).
        queries: Long [B, Q] in [0, L): where each row attends, those of the M in it and others, to make it Q;
            None: everywhere.
        answers: Long [M] in [0, B * Q): which of the queries each of the M is; ``places`` where they are everywhere.
    """

    places: Tensor
    queries: Tensor | None
    answers: Tensor


def ask(positions: Tensor, runs_as: Tensor, num_rows: int, count: int, at_most: int) -> Asked:
    """Ask for some positions of images; nothing here waits for the device.

    Args:
        positions: Bool [K, N], of codes, without their frame.
        runs_as: Long [K] in [0, num_rows): the row that runs for each; several may have the same.
        num_rows: B.
        count: M, how many positions there are in all.
        at_most: Q, no less than the positions of any row that runs; with N or more a row attends everywhere.
    """
    num_codes = positions.shape[1]
    image_M, at_M = torch.nonzero_static(positions, size=count).unbind(dim=1)
    row_M = runs_as[image_M]
    places_M = row_M * (num_codes + 2 * EDGE) + EDGE + at_M
    if at_most >= num_codes:
        return Asked(places_M, None, places_M)
    wanted_BN = positions.new_zeros(num_rows, num_codes, dtype=torch.long)
    wanted_BN = wanted_BN.index_add(0, runs_as, positions.long()).clamp(max=1)
    queries_BQ = EDGE + wanted_BN.argsort(dim=1, descending=True, stable=True)[:, :at_most]
    rank_BN = wanted_BN.cumsum(dim=1) - 1
    return Asked(places_M, queries_BQ, row_M * at_most + rank_BN[row_M, at_M])


def asked_evenly(num_rows: int, num_codes: int, count: int) -> Asked:
    """Ask for as many positions of each row as of any other, to follow what a pass costs: their values say nothing."""
    at_most, places_M = -(-count // max(num_rows, 1)), torch.zeros(count, dtype=torch.long)
    queries_BQ = torch.zeros(num_rows, at_most, dtype=torch.long)
    return Asked(places_M, queries_BQ if at_most < num_codes else None, places_M)
