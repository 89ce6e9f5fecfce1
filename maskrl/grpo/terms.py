"""The terms of a reward as columns, and what each counts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel

ROUNDING = 1e-4  # of the terms' size: how far their sum may be from the score


def reward_name(reward: RewardModel) -> str:
    """Return what a reward is called where its score is one of its columns."""
    return type(reward.unwrapped()).__name__


def join_terms(reward: RewardModel, portions: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate every term of images that were scored in portions.

    Raises:
        PluginError: the terms have other names in another portion.
    """
    names = portions[0].keys()
    if other := next((terms.keys() for terms in portions if terms.keys() != names), None):
        raise refused(reward, f"its terms are {sorted(names)} in one call and {sorted(other)} in another")
    return {name: torch.cat([terms[name] for terms in portions]) for name in names}


def term_weights(reward: RewardModel, names: Sequence[str]) -> Tensor | None:
    """Ask what each term counts, by itself: Float [R], fp64; None where the reward does not say.

    Raises:
        PluginError: the weights are no finite numbers, or not of these terms.
    """
    with asking(reward):
        found = reward.term_weights()
    if found is None:
        return None
    if not isinstance(found, Mapping) or found.keys() != set(names):
        said = sorted(found) if isinstance(found, Mapping) else type(found).__name__
        raise refused(reward, f"term_weights has {said}, and its terms are {sorted(names)}")
    try:
        weights = [float(found[name]) for name in names]
    except (TypeError, ValueError) as error:
        raise refused(reward, f"term_weights holds something else than numbers: {error}") from error
    if not all(map(math.isfinite, weights)):
        raise refused(reward, f"term_weights is not finite: {dict(zip(names, weights, strict=True))}")
    return torch.tensor(weights, dtype=torch.float64)


def weights_of_columns(reward: RewardModel, names: Sequence[str], columns: Tensor, scores: Tensor) -> Tensor:
    """Return what each column counts, Float [R]: the reward's own weights, or 1 each where they add up to the score.

    Args:
        reward: what scored.
        names: of the R columns.
        columns: Float [P, G, R].
        scores: Float [P, G].

    Raises:
        RecipeError: the reward says no weights, and its terms do not add up.
        PluginError: its weights are not of its terms.
    """
    weights = term_weights(reward, names)
    if weights is not None:
        return weights
    difference, size = (
        (columns.double().sum(dim=-1) - scores.double()).abs(),
        columns.double().abs().sum(dim=-1),
    )
    if (difference <= ROUNDING * size).all():
        return torch.ones(len(names), dtype=torch.float64)
    raise RecipeError(
        f"grpo.advantage_of = 'terms': the terms {', '.join(names)} of {reward_name(reward)!r} do not add"
        " up to its score, and it has no term_weights(); set grpo.advantage_of = 'score', or make it of"
        " reward.name = 'weighted_sum'"
    )
