"""Paint images by unmasking, and record every step. Source: Sec. 2.1, eqs. 1-5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.grpo.casts import casting_once
from maskrl.grpo.config import Sampling
from maskrl.grpo.policy import are_greedy, guided_logits, temperature_at
from maskrl.grpo.positions import POSITION_POLICIES, SCORES
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.tables import look_up
from maskrl.grpo.temperature import temperatures
from maskrl.grpo.unmask import RECORDED, Rule, unmask
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.places import Places
from maskrl.types import StepIndex, Stream, Trajectory


@torch.no_grad()
def rollout(
    generator: MaskedGenerator,
    condition: Condition,
    streams: Sequence[Stream],
    num_steps: int,
    sampling: Sampling,
    guidance: float,
    record_sets: bool = False,
    record_completions: bool = False,
) -> Trajectory:
    """Paint one image per stream.

    Args:
        generator: the behaviour policy.
        condition: of B rows.
        streams: B streams: each image's noise depends on its own stream alone.
        num_steps: T; at most N.
        sampling: the rules by which a step proposes and chooses.
        guidance: w in (1 + w) * cond - w * uncond, before the rule of each step.
        record_sets: whether the trajectory has the set {k} of eq. 14 of every position.
        record_completions: whether it has the likeliest code of every masked position.
    """
    spec = generator.spec
    taus = temperatures(num_steps, sampling.temperature_rule, sampling.tau_init)
    counts = unmask_counts(spec.num_tokens, num_steps, sampling.schedule)
    greedy = are_greedy(num_steps, sampling)
    device = next(generator.module.parameters()).device
    noise_BT2N = _noise(streams, num_steps, spec.num_tokens).to(device)
    tokens_BN = torch.full((len(streams), spec.num_tokens), spec.mask_id, device=device)
    step_BN, logp_BN = torch.zeros_like(tokens_BN), torch.zeros(tokens_BN.shape, device=device)
    steps = []
    with casting_once(device):
        condition = answers.prefill(generator, condition)
        for t in range(num_steps):
            at = StepIndex(torch.full((len(streams),), t, device=device), num_steps)
            places = Places.of(tokens_BN == spec.mask_id, len(streams) * sum(counts[t:]))
            inputs = (generator, tokens_BN, condition, at, sampling, guidance, places)
            rule = _rule(generator, at, sampling, counts[t], taus[t], greedy[t])
            made = unmask(
                guided_logits(*inputs),
                tokens_BN,
                noise_BT2N[:, t],
                rule,
                spec.mask_id,
                record_sets,
                record_completions=record_completions,
            )
            steps.append(made)
            revealed_BN = made.reveal_rank >= 0
            tokens_BN = torch.where(revealed_BN, made.proposals, tokens_BN)
            step_BN = torch.where(revealed_BN, t, step_BN)
            logp_BN = torch.where(revealed_BN, made.logp, logp_BN)
    return Trajectory(
        **{name: torch.stack([getattr(step, name) for step in steps], dim=1) for name in RECORDED},
        tau=torch.tensor(taus, dtype=torch.float32, device=device),
        tokens=tokens_BN,
        mask_id=spec.mask_id,
        revealed_in=step_BN,
        logp=logp_BN,
    )


def _rule(
    generator: MaskedGenerator,
    step: StepIndex,
    sampling: Sampling,
    num_revealed: int,
    tau: float,
    greedy: bool,
) -> Rule:
    """Look up the rule of a step at which all rows are."""
    by_name = look_up(SCORES, sampling.score, "score")
    temperature_B = temperature_at(step, sampling)

    def score(logits: Tensor, proposals: Tensor, logp: Tensor) -> Tensor:
        at = StepIndex(step.t[:1].expand(len(proposals)), step.num_steps)
        return by_name(generator, logits, proposals, logp, at)

    return Rule(
        num_revealed=num_revealed,
        tau=tau,
        temperature=None if temperature_B is None else temperature_B[:1],
        greedy=greedy,
        score=score,
        order=look_up(POSITION_POLICIES, sampling.position_policy, "position_policy"),
        grid=generator.spec.grid,
    )


def join(trajectories: Sequence[Trajectory]) -> Trajectory:
    """Put images of the same T side by side, in order."""
    first = trajectories[0]
    names = [name for name in vars(first) if name not in ("tau", "mask_id")]
    columns = {name: [getattr(t, name) for t in trajectories] for name in names}
    record: dict[str, Any] = {  # where one has no ``sets``, all have none
        name: torch.cat(parts) if all(part is not None for part in parts) else None
        for name, parts in columns.items()
    }
    return replace(first, **record)


def _noise(streams: Sequence[Stream], num_steps: int, num_tokens: int) -> Tensor:
    """Float [B, T, 2, N] in [0, 1), drawn on the CPU: the same on every device."""
    shape = (num_steps, 2, num_tokens)
    return torch.stack(
        [torch.rand(shape, generator=stream.generator(), dtype=torch.float32) for stream in streams]
    )
