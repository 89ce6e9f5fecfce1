"""What an image was going to score before each step: the reward of its completion by the likeliest codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.grpo.actor import Actor
from maskrl.grpo.reward_scorer import RewardScorer, check_finite
from maskrl.grpo.terms import reward_name
from maskrl.interfaces import Condition
from maskrl.types import Prompt, Trajectory


def values(
    actor: Actor, condition: Condition, trajectory: Trajectory, prompts: Sequence[Prompt], update: int
) -> Tensor:
    """Decode and judge the completions of B images before each of their steps but the first, whose are all alike.

    Args:
        actor: who decodes and judges, in its portions.
        condition: of B rows.
        trajectory: of B images, with ``completions``.
        prompts: B prompts.
        update: to be named if a reward is not finite.

    Returns:
        Float [B, T]; 0 at the first step.

    Raises:
        TrainingError: a reward that is not finite.
        PluginError: a component's answer is none.
    """
    assert trajectory.completions is not None, "the rollout recorded no completions"
    found = [torch.zeros(len(prompts), device=trajectory.tokens.device)]
    for completion_BN in trajectory.completions.unbind(dim=1)[1:]:
        scorer = RewardScorer(actor.reward, prompts, actor.portions.reward_batch, overlap=False)
        for rows in torch.arange(len(prompts)).split(actor.portions.rollout_batch):
            at = rows.to(completion_BN.device)
            scorer.add(answers.decode(actor.generator, completion_BN[at], condition.select(at)))
        score_B = scorer.scores()[0]
        check_finite(reward_name(actor.reward), score_B, prompts, f"update {update}, of an unfinished image")
        found.append(score_B.to(found[0]))
    return torch.stack(found, dim=1)
