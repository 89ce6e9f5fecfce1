"""``random_remask``: the finished image, masked again at random, as diffusion language models are trained."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskrl.interfaces import TransitionProb
from maskrl.transitions.ar import Ar
from maskrl.types import Stream, Trajectory, Transition


class RandomRemask(TransitionProb):
    """Sum log p of the finished image's codes where it is masked again: ``ar``, of states that no step has visited.

    Step t masks as many positions as were masked before step t, drawn by chance for each image and step: ratios of
    masking from 1 down, spread evenly as the schedule spreads them. All masked positions count as revealed. It
    estimates a bound on the image's likelihood, not the probability of what was painted.

    Source: UniGRPO (MMaDA, arXiv 2505.15809), diffu-GRPO (d1, arXiv 2504.12216). UniGRPO draws the ratio; d1 masks
    everything. ``grpo.num_updates`` > 1 sees the same masks in every pass.
    """

    def __init__(self, config: Ar.Config) -> None:
        super().__init__(config)
        self._ar = Ar(config)

    Config = Ar.Config

    def scored(self, trajectory: Trajectory, stream: Stream) -> Trajectory:
        """Mask the finished images again."""
        masked_BTN = _drawn(trajectory.state == trajectory.mask_id, stream)
        tokens_BTN = trajectory.tokens[:, None].expand_as(trajectory.state)
        return replace(
            trajectory,
            state=tokens_BTN.masked_fill(masked_BTN, trajectory.mask_id),
            proposals=tokens_BTN.clone(),
            reveal_rank=(masked_BTN.cumsum(dim=-1) - 1).masked_fill(~masked_BTN, -1),
            floored=torch.zeros_like(trajectory.floored),
            threshold=torch.ones_like(trajectory.threshold),  # nobody's: nothing was confident of anything
            sets=None,
        )

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        return self._ar.log_prob(logits, transition)


def _drawn(masked: Tensor, stream: Stream) -> Tensor:
    """Draw as many positions as are masked in each row, by chance: Bool [B, T, N] -> Bool [B, T, N]."""
    noise_BTN = torch.rand(masked.shape, generator=stream.generator(), dtype=torch.float32).to(masked.device)
    place_BTN = noise_BTN.argsort(dim=-1).argsort(dim=-1)
    return place_BTN < masked.sum(dim=-1, keepdim=True)
