"""How much of an image's advantage is each step's: what the step changed in what the image was going to score."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo.advantage import centred, scale
from maskrl.grpo.config import GRPOConfig, Sampling
from maskrl.interfaces import TransitionProb


def step_advantages(values: Tensor, rewards: Tensor, keep: Tensor, config: GRPOConfig) -> Tensor:
    """Split the advantages of images over their steps.

    Before step t an image is expected to score ``u_t``: the reward of its completion by the likeliest codes, centred
    within the group, times the slope with which the finished images of this batch follow it (0 to 1). ``u_0`` is 0, as
    all images of a group begin alike, and ``u_T`` the reward, centred. Then

        A_t = sum over k >= t of credit_decay ** (k - t) * (u_{k+1} - u_k),

    divided as the advantage of images is; by the group's std where that is asked for, but of whichever ``u`` varies
    most: in a group whose finished images score alike the rewards' is 0, and what was expected need not be. At
    ``credit_decay`` = 1 it is what the image gained less what was expected.

    Args:
        values: Float [P, G, T], what the completion before each step scores, the groups of all processes.
        rewards: Float [P, G].
        keep: Bool [P]; the others get 0.
        config: the settings ``credit_decay``, ``advantage_std`` and ``advantage_eps``.

    Returns:
        Float [P, G, T], fp64; its sum over a group is 0 at every step.

    Source: generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438) with a completion as the value.
    """
    value_PGT, reward_PG1 = centred(values), centred(rewards)[..., None]
    value_PGT[..., 0] = 0.0
    both_T, own_T = ((value_PGT * other)[keep].sum(dim=(0, 1)) for other in (reward_PG1, value_PGT))
    slope_T = (both_T / own_T.clamp(min=torch.finfo(torch.float64).tiny)).clamp(0.0, 1.0)
    expected = torch.cat([value_PGT * slope_T, reward_PG1], dim=-1)
    change_PGT = expected.diff(dim=-1)
    credit = [torch.zeros_like(change_PGT[..., 0])]
    for change_PG in reversed(change_PGT.unbind(dim=-1)):
        credit.append(change_PG + config.credit_decay * credit[-1])
    credit_PGT = torch.stack(credit[:0:-1], dim=-1)
    divisor_P1 = scale(rewards, keep, config.advantage_std, config.advantage_eps)
    if config.advantage_std == "group":
        spread_P1 = expected.square().mean(dim=1).amax(dim=-1, keepdim=True).sqrt()
        divisor_P1 = torch.maximum(divisor_P1, spread_P1)
    return torch.where(keep[:, None, None], credit_PGT / divisor_P1[..., None], 0.0)


def check_credit(config: GRPOConfig, transition: TransitionProb, sampling: Sampling) -> None:
    """Refuse a credit by step where the score of a step has a mean of its own, which such credit lets loose.

    Raises:
        RecipeError: positions are chosen by the codes proposed there, or what is scored is not what was painted.
    """
    if config.credit == "image":
        return
    chosen = sampling.in_training
    if chosen.position_policy == "confidence" and chosen.score != "max_prob":
        name = type(transition).__name__
        other = (
            f"; {name} refuses such positions: choose transition.name = 'p_theta2' too, without order_from"
        )
        raise RecipeError(
            "grpo.credit = 'step' needs positions that are chosen whatever is proposed there, or learning drifts; set"
            " sampling.position_policy_train = 'random', or sampling.score = 'max_prob', or grpo.credit = 'image'"
            + (other if transition.needs_log_prob else "")
        )
    if type(transition).scored is not TransitionProb.scored:
        raise RecipeError(
            f"grpo.credit = 'step' is of the steps that painted, and {type(transition).__name__} scores others; choose"
            " transition.name = 'p_theta2', or grpo.credit = 'image'"
        )
