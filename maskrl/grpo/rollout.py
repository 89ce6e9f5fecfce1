"""Paint images by unmasking, and record every step. Source: Sec. 2.1, eqs. 1-5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.grpo.confidence import border, log_softmax, pack_bits, pick, remaskable
from maskrl.grpo.config import Sampling
from maskrl.grpo.schedule import temperatures, unmask_counts
from maskrl.interfaces import Condition, MaskedGenerator
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
) -> Trajectory:
    """Paint one image per stream.

    Args:
        generator: the behaviour policy.
        condition: of B rows.
        streams: B streams: each image's noise depends on its own stream alone.
        num_steps: T; at most N.
        sampling: the schedule and the temperature rule.
        guidance: w in (1 + w) * cond - w * uncond.
        record_sets: whether the trajectory has the set {k} of eq. 14 of every position.
    """
    spec = generator.spec
    taus = temperatures(num_steps, sampling.temperature_rule, sampling.tau_init)
    counts = unmask_counts(spec.num_tokens, num_steps, sampling.schedule)
    device = next(generator.module.parameters()).device
    condition = answers.prefill(generator, condition)
    noise_BT2N = _noise(streams, num_steps, spec.num_tokens).to(device)
    tokens_BN = torch.full((len(streams), spec.num_tokens), spec.mask_id, device=device)
    steps = []
    for t in range(num_steps):
        at = StepIndex(torch.full((len(streams),), t, device=device), num_steps)
        logits_MV = answers.logits(generator, tokens_BN, condition, at, guidance, tokens_BN == spec.mask_id)
        noise_B2N = noise_BT2N[:, t]
        steps.append(unmask(logits_MV, tokens_BN, noise_B2N, counts[t], taus[t], spec.mask_id, record_sets))
        tokens_BN = torch.where(steps[-1].reveal_rank >= 0, steps[-1].proposals, tokens_BN)
    record = {f.name: torch.stack([getattr(step, f.name) for step in steps], dim=1) for f in fields(Unmasked)}
    tau_T = torch.tensor(taus, device=device)
    return Trajectory(tau=tau_T, tokens=tokens_BN, mask_id=spec.mask_id, **record)


@dataclass(frozen=True)
class Unmasked:
    """What one step of :func:`rollout` did; the fields are those of :class:`maskrl.types.Transition`."""

    state: Tensor
    proposals: Tensor
    reveal_rank: Tensor
    floored: Tensor
    threshold: Tensor
    entropy: Tensor
    sets: Tensor


def unmask(
    logits: Tensor,
    state: Tensor,
    uniform: Tensor,
    num_revealed: int,
    tau: float,
    mask_id: int,
    record_sets: bool = False,
) -> Unmasked:
    """Propose a code at every masked position and reveal the most confident.

    Args:
        logits: Float [M, V] at the masked positions, packed row by row; every row has as many.
        state: Long [B, N].
        uniform: Float [B, 2, N] in [0, 1): for the proposals, and for the noise on their confidence.
        num_revealed: n_t.
        tau: temperature of the Gumbel noise.
        mask_id: the token that means "masked".
        record_sets: whether ``sets`` holds anything.

    Source: eq. 5. Ties go to the lowest index.
    """
    masked_BN = state == mask_id
    log_p_MV = log_softmax(logits)
    proposal_M = _inverse_cdf(log_p_MV.exp(), uniform[:, 0][masked_BN])
    logp_M = pick(log_p_MV, proposal_M)
    confidence_M = logp_M + tau * _gumbel(uniform[:, 1][masked_BN]).to(logp_M.dtype)
    reveal_rank_BN = _rank(_spread(confidence_M, masked_BN, -torch.inf), num_revealed)
    revealed_BN = reveal_rank_BN >= 0
    threshold_B, behind_BN = border(_spread(logp_M, masked_BN, torch.inf), revealed_BN)
    possible_MV = remaskable(log_p_MV, threshold_B[:, None].expand_as(state)[masked_BN], behind_BN[masked_BN])
    entropy_M = torch.special.entr(log_p_MV.exp()).sum(dim=-1)
    return Unmasked(
        state=state,
        proposals=state.masked_scatter(masked_BN, proposal_M),
        reveal_rank=reveal_rank_BN,
        floored=_spread(~possible_MV.any(dim=-1), masked_BN, False) & ~revealed_BN,
        # fp64, so that its logarithm rounds back to the very log p that set it
        threshold=threshold_B.double().exp(),
        entropy=entropy_M.view(len(state), -1).mean(dim=1),
        sets=_spread_sets(pack_bits(possible_MV) if record_sets else possible_MV[:, :0].byte(), masked_BN),
    )


def join(trajectories: Sequence[Trajectory]) -> Trajectory:
    """Put images of the same T side by side, in order."""
    first = trajectories[0]
    record = {f.name: torch.cat([getattr(t, f.name) for t in trajectories]) for f in fields(Unmasked)}
    tokens = torch.cat([t.tokens for t in trajectories])
    return Trajectory(tau=first.tau, tokens=tokens, mask_id=first.mask_id, **record)


def _noise(streams: Sequence[Stream], num_steps: int, num_tokens: int) -> Tensor:
    """Float [B, T, 2, N] in [0, 1), drawn on the CPU: the same on every device."""
    shape = (num_steps, 2, num_tokens)
    return torch.stack([torch.rand(shape, generator=stream.generator()) for stream in streams])


def _inverse_cdf(p: Tensor, uniform: Tensor) -> Tensor:
    """Sample a code per position: Float [M, V], Float [M] in [0, 1) -> Long [M]. Never a code of p = 0."""
    cdf_MV = p.double().cumsum(dim=-1)
    target_M1 = uniform.double()[:, None] * cdf_MV[:, -1:]
    return torch.searchsorted(cdf_MV, target_M1, right=True).squeeze(-1).clamp(max=p.shape[-1] - 1)


def _gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise, finite also at 0."""
    return -(-uniform.double().clamp(min=1e-9).log()).log()


def _rank(confidence: Tensor, num_revealed: int) -> Tensor:
    """Float [B, N] -> Long [B, N]: 0 at the most confident ... n - 1, else -1. Stable, unlike ``topk``."""
    best_Bn = confidence.argsort(dim=1, descending=True, stable=True)[:, :num_revealed]
    rank_n = torch.arange(num_revealed, device=confidence.device)
    unranked_BN = torch.full(confidence.shape, -1, device=confidence.device)
    return unranked_BN.scatter(1, best_Bn, rank_n.expand_as(best_Bn))


def _spread(packed: Tensor, masked: Tensor, fill: float) -> Tensor:
    """[M] -> [B, N], ``fill`` at the positions that are not masked."""
    blank_BN = torch.full(masked.shape, fill, dtype=packed.dtype, device=packed.device)
    return blank_BN.masked_scatter(masked, packed)


def _spread_sets(packed: Tensor, masked: Tensor) -> Tensor:
    """uint8 [M, W] -> [B, N, W], 0 at the positions that are not masked."""
    blank_BNW = packed.new_zeros(*masked.shape, packed.shape[1])
    blank_BNW[masked] = packed
    return blank_BNW
