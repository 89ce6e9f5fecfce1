"""How much better an image is than its group. Source: eq. 12."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.errors import RecipeError


def advantages(rewards: Tensor, keep: Tensor, std: str, eps: float) -> Tensor:
    """Standardise rewards within each group.

    Args:
        rewards: Float [P, G], the groups of all processes.
        keep: Bool [P]; the others get 0.
        std: "group": divide by the group's population std; "global": by that of the centred rewards of all
            kept groups; "none": do not divide (Dr. GRPO).
        eps: added to the std: a reward that differs by rounding alone must not become an advantage of 1.

    Returns:
        Float [P, G], the same for every step of an image.

    Raises:
        RecipeError: a group of one image.
    """
    if rewards.shape[1] < 2:
        raise RecipeError("group_size = 1: an image cannot be better than its group; choose at least 2")
    centred_PG = rewards - rewards.mean(dim=1, keepdim=True)
    if std == "group":
        scale = centred_PG.square().mean(dim=1, keepdim=True).sqrt() + eps
    elif std == "global":
        scale = centred_PG[keep].square().mean().sqrt() + eps
    else:
        scale = torch.ones_like(centred_PG[:1, :1])
    return torch.where(keep[:, None], centred_PG / scale, 0.0)
