"""Recorded trajectories that a transition probability is asked about."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.grpo.rollout import join
from maskrl.grpo.unmask import RECORDED, Rule, Unmasked, unmask
from maskrl.types import Stream, Trajectory, Transition


def recorded(num_images: int, num_tokens: int, num_codes: int, record_sets: bool) -> Trajectory:
    """Sample a trajectory from logits that :func:`logits_of` gives again.

    At a step, rows reveal one position or several, and not as many as the others; no row is like another.
    """
    rows = range(num_images)
    return join([_row(row, num_tokens, num_codes, record_sets) for row in rows])


def logits_of(rows: Tensor, transition: Transition, num_codes: int) -> Tensor:
    """Long [B], which images they are of -> Float [M, V]: logits that depend on step, image and position."""
    num_tokens = transition.state.shape[1]
    pairs = zip(rows.tolist(), transition.step.t.tolist(), strict=True)
    return torch.stack([_drawn(row, t, num_tokens, num_codes) for row, t in pairs])[transition.masked]


def _drawn(row: int, step: int, num_tokens: int, num_codes: int) -> Tensor:
    stream = Stream(0, ("logits", row, step))
    return torch.randn(num_tokens, num_codes, generator=stream.generator(), dtype=torch.float32)


def _counts(row: int, num_tokens: int) -> list[int]:
    """Say how many positions each step reveals: one, and at one of the steps, another in each row, all others."""
    num_steps = max(min(2, num_tokens), (num_tokens + 1) // 2)
    counts = [1] * num_steps
    counts[2 * row % num_steps] += num_tokens - num_steps
    return counts


def _row(row: int, num_tokens: int, num_codes: int, record_sets: bool) -> Trajectory:
    counts, mask_id = _counts(row, num_tokens), num_codes
    taus = torch.linspace(1.0, 0.0, len(counts), dtype=torch.float32)
    state = torch.full((1, num_tokens), mask_id)
    steps: list[Unmasked] = []
    for t, count in enumerate(counts):
        noise = Stream(0, ("noise", row, t)).generator()
        uniform = torch.rand(1, 2, num_tokens, generator=noise, dtype=torch.float32)
        logits = _drawn(row, t, num_tokens, num_codes)[state[0] == mask_id]
        steps.append(unmask(logits, state, uniform, Rule(count, float(taus[t])), mask_id, record_sets))
        state = torch.where(steps[-1].reveal_rank >= 0, steps[-1].proposals, state)
    record = {name: torch.stack([getattr(step, name) for step in steps], dim=1) for name in RECORDED}
    return Trajectory(tau=taus, tokens=state, mask_id=mask_id, **record)
