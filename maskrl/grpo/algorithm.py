"""What both halves of an update must agree on."""

from __future__ import annotations

from dataclasses import dataclass

from maskrl.grpo.config import GRPOConfig, Sampling
from maskrl.interfaces import TransitionProb


@dataclass(frozen=True)
class Algorithm:
    """How a transition's probability is defined, the settings of GRPO, and how images are sampled."""

    transition: TransitionProb
    config: GRPOConfig
    sampling: Sampling
