"""How much the images of a group differ: when a reward is being hacked, they come to look alike."""

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
