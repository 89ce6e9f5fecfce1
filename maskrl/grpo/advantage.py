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
        eps: added to the std, with the rounding of a number as large as the rewards: rewards that differ by rounding
            alone must not become an advantage of 1.

    Returns:
        Float [P, G], the same for every step of an image; exactly 0 in a group of equal rewards. It is computed in
        fp64: in fp32 the mean of six times 12,345.678 is another number, and its distance would teach.

    Raises:
        RecipeError: a group of one image.
    """
    if rewards.shape[1] < 2:
        raise RecipeError("group_size = 1: an image cannot be better than its group; choose at least 2")
    from_first_PG = rewards.double() - rewards[:, :1].double()  # equal rewards: exactly 0, whatever they are
    centred_PG = from_first_PG - from_first_PG.mean(dim=1, keepdim=True)
    rounding_P1 = torch.finfo(rewards.dtype).eps * rewards.double().abs().amax(dim=1, keepdim=True)
    if std == "group":
        scale = centred_PG.square().mean(dim=1, keepdim=True).sqrt() + eps + rounding_P1
    elif std == "global":
        scale = centred_PG[keep].square().mean().sqrt() + eps + rounding_P1
    else:
        scale = torch.ones_like(rounding_P1)
    return torch.where(keep[:, None], centred_PG / scale, 0.0).to(rewards.dtype)
