"""How much better an image is than its group. Source: eq. 12."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo.config import GRPOConfig


def advantages(rewards: Tensor, columns: Tensor, weights: Tensor, keep: Tensor, config: GRPOConfig) -> Tensor:
    """Standardise rewards within each group: the score as it is, or each of its terms, as ``config.advantage_of`` says.

    Args:
        rewards: Float [P, G], the groups of all processes.
        columns: Float [P, G, R], the terms that they are made of.
        weights: Float [R], what each term counts once it is standardised.
        keep: Bool [P]; the others get 0.
        config: the settings ``advantage_of``, ``advantage_std`` and ``advantage_eps``.

    Returns:
        Float [P, G], the same for every step of an image; exactly 0 in a group of equal rewards.

    Raises:
        RecipeError: a group of one image.
    """
    settings = (keep, config.advantage_std, config.advantage_eps)
    if config.advantage_of == "score":
        return standardise(rewards, *settings).to(rewards.dtype)
    return standardise_each(columns, weights, *settings).to(rewards.dtype)


def standardise(values: Tensor, keep: Tensor, std: str, eps: float) -> Tensor:
    """Centre values within each group, and divide.

    Args:
        values: Float [P, G], the groups of all processes.
        keep: Bool [P]; the others get 0.
        std: "group": divide by the group's population std; "global": by that of the centred values of all
            kept groups; "none": do not divide (Dr. GRPO).
        eps: added to the std, with the rounding of a number as large as the values: values that differ by rounding
            alone must not become an advantage of 1.

    Returns:
        Float [P, G], fp64: in fp32 the mean of six times 12,345.678 is another number, and its distance would teach.

    Raises:
        RecipeError: a group of one image.
    """
    if values.shape[1] < 2:
        raise RecipeError("group_size = 1: an image cannot be better than its group; choose at least 2")
    return torch.where(keep[:, None], centred(values) / scale(values, keep, std, eps), 0.0)


def centred(values: Tensor) -> Tensor:
    """Take off the mean of each group: Float [P, G, ...] -> the same in fp64; equal values are exactly 0."""
    from_first = values.double() - values[:, :1].double()
    return from_first - from_first.mean(dim=1, keepdim=True)


def scale(values: Tensor, keep: Tensor, std: str, eps: float) -> Tensor:
    """Return what :func:`standardise` divides by: Float [P, 1], fp64."""
    centred_PG = centred(values)
    rounding_P1 = torch.finfo(values.dtype).eps * values.double().abs().amax(dim=1, keepdim=True)
    if std == "group":
        return centred_PG.square().mean(dim=1, keepdim=True).sqrt() + eps + rounding_P1
    if std == "global":
        return centred_PG[keep].square().mean().sqrt() + eps + rounding_P1
    return torch.ones_like(rounding_P1)


def standardise_each(columns: Tensor, weights: Tensor, keep: Tensor, std: str, eps: float) -> Tensor:
    """Standardise every term by itself, add them up by weight, and divide by the std over all kept images.

    So a term's own scale does not matter, and images that differ in their terms differ in their advantage though the
    sums agree. A term that is the same for all images of a group adds exactly 0 there.

    Args:
        columns: Float [P, G, R].
        weights: Float [R].
        keep: Bool [P]; the others get 0.
        std: see :func:`standardise`, of each term.
        eps: added to every std.

    Returns:
        Float [P, G], fp64.

    Source: GDPO, arXiv 2601.05242: per-reward group normalisation, weighted sum, batch normalisation. The last has no
    mean to take off here: it is 0, because every term's is 0 in every group.
    """
    terms = (standardise(column, keep, std, eps) for column in columns.unbind(dim=-1))
    total_PG = sum(
        (weight * term for weight, term in zip(weights.double(), terms, strict=True)), torch.zeros(())
    )
    return torch.where(keep[:, None], total_PG / (total_PG[keep].square().mean().sqrt() + eps), 0.0)
