"""What rewards answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.grpo.answers.common import as_number, as_pair, as_tensor, kind, lending
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt

TERM = re.compile(r"[A-Za-z0-9_-]+")


def score(reward: RewardModel, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
    """Score B images, Float [B, 3, H, W], with a prompt each: Float [B], fp32, on the images' device, no gradient.

    Raises:
        PluginError: it is no number for each image.
    """
    with lending(reward, "score", images=images):
        found = reward.score(images, prompts)
    return _scores(reward, "score", found, images)


def score_terms(
    reward: RewardModel, images: Tensor, prompts: Sequence[Prompt]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Do as :func:`score`, and return as much of every term.

    Raises:
        PluginError: it is no number for each image, or a term's name cannot be a metric's.
    """
    with lending(reward, "score_terms", images=images):
        answer = reward.score_terms(images, prompts)
    total, terms = as_pair(reward, "score_terms", answer)
    if not isinstance(terms, Mapping):
        raise refused(reward, f"score_terms returned {kind(terms)} for the terms, not a dict")
    for name in terms:
        if not (isinstance(name, str) and TERM.fullmatch(name)):
            raise refused(reward, f"score_terms calls a term {name!r}; use letters, digits, '_' and '-'")
    checked = {name: _scores(reward, f"the term {name!r}", terms[name], images) for name in terms}
    return _scores(reward, "score", total, images), checked


def cost(reward: type[RewardModel], config: Any) -> tuple[int, float]:
    """Ask how many parameters a reward has, and what an image costs in FLOPs.

    Raises:
        PluginError: it is no pair of numbers.
    """
    with asking(reward):
        answer = reward.cost(config)
    parameters, flops = as_pair(reward, "cost", answer)
    return int(as_number(reward, "the cost in parameters", parameters)), as_number(
        reward, "the cost in FLOPs", flops
    )


def _scores(reward: RewardModel, what: str, found: Any, images: Tensor) -> Tensor:
    scores, size = as_tensor(reward, what, found), len(images)
    if scores.shape != (size,) or scores.is_complex():
        raise refused(
            reward,
            f"{what} returned {kind(scores)} for {size} images; wanted is one number each: Float [{size}]",
        )
    return scores.detach().to(images.device, torch.float32)
