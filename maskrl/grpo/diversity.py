"""How much pictures differ: those of a group, which come to look alike when a reward is being hacked, and of steps."""

from __future__ import annotations

import torch
from torch import Tensor


def token_diversity(tokens: Tensor, group_size: int) -> Tensor:
    """Mean over groups and pairs in them of the share of positions with different codes.

    Args:
        tokens: Long [B, N], B = P * G, group by group.
        group_size: G >= 2.

    Returns:
        Float [], fp64, in [0, 1]. Codes that look alike count as different.
    """
    tokens_PGN = tokens.view(-1, group_size, tokens.shape[1])
    differ = [
        (tokens_PGN[:, i + 1 :] != tokens_PGN[:, i : i + 1]).double().mean(dim=2)
        for i in range(group_size - 1)
    ]
    return torch.cat(differ, dim=1).mean()


def mean_square_difference(images: Tensor, group_size: int) -> Tensor:
    """Mean, over groups, pairs in them and pixels, of the squared difference of two images.

    Args:
        images: Float [B, 3, H, W] in [0, 1], B = P * G, group by group.
        group_size: G >= 2.

    Returns:
        Float [], fp64, in [0, 1].
    """
    images_PGX = images.double().reshape(-1, group_size, images[0].numel())
    return 2 * images_PGX.var(dim=1, correction=1).mean()  # E (x - y)^2 = 2 var


def step_change(proposals: Tensor) -> Tensor:
    """Measure how much the picture that each step proposes differs from the one before it.

    Args:
        proposals: Long [B, T, N], of every step a whole picture: proposed or known codes.

    Returns:
        Float [B, T], fp64, in [0, 1]: the share of positions with another code; 0 at the first step.
    """
    differ_BT = (proposals[:, 1:] != proposals[:, :-1]).double().mean(dim=-1)
    return torch.nn.functional.pad(differ_BT, (1, 0))
