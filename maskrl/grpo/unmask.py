"""One step of unmasking: propose a code at every masked position, reveal the best. Source: eq. 5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from maskrl.grpo.confidence import border, log_softmax, pack_bits, pick, remaskable
from maskrl.grpo.positions import Candidates, confidence, rank
from maskrl.grpo.temperature import peaked, tempered
from maskrl.places import Places

PORTION = (
    2**23
)  # logits sampled from at a time, 24 bytes each: smaller tensors than 32 MiB stay with malloc, in pieces

NOTHING = -1000.0  # nats: e to this is 0 in every precision


@dataclass(frozen=True)
class Rule:
    """How a step proposes and chooses; the same for all rows.

    Attributes:
        num_revealed: n_t.
        tau: temperature of the Gumbel noise.
        temperature: Float [1], what the logits of the proposals are divided by; None: by nothing.
        greedy: whether the likeliest codes are proposed, without chance: the temperature is 0.
        score: Float [M, V], proposals Long [M] and their log p Float [M] -> Float [M].
        order: candidates and tau -> Float [M]: the largest are revealed.
        grid: (rows, columns) of the image, for an order that goes by place; None: it has none.
    """

    num_revealed: int
    tau: float
    temperature: Tensor | None = None
    greedy: bool = False
    score: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda logits, proposals, logp: logp
    order: Callable[[Candidates, float], Tensor] = confidence
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Unmasked:
    """What one step of :func:`rollout` did; the fields are those of :class:`maskrl.types.Trajectory`.

    But ``logp``: Float [B, N], nats, is of every proposal, 0 where nothing was masked.
    """

    state: Tensor
    proposals: Tensor
    reveal_rank: Tensor
    floored: Tensor
    threshold: Tensor
    entropy: Tensor
    logp: Tensor
    sets: Tensor
    completions: Tensor


RECORDED = tuple(field.name for field in fields(Unmasked) if field.name != "logp")  # of a step, as it is


def unmask(
    logits: Tensor,
    state: Tensor,
    uniform: Tensor,
    rule: Rule,
    mask_id: int,
    record_sets: bool = False,
    portion: int | None = None,
    record_completions: bool = False,
) -> Unmasked:
    """Propose a code at every masked position and reveal the best.

    Args:
        logits: Float [M, V] at the masked positions, packed row by row; every row has as many.
        state: Long [B, N].
        uniform: Float [B, 2, N] in [0, 1): for the proposals, and for the noise on their confidence.
        rule: how.
        mask_id: the token that means "masked".
        record_sets: whether ``sets`` holds anything.
        portion: positions at a time, which changes memory and speed only; None: as :data:`PORTION` says.
        record_completions: whether ``completions`` holds anything.

    Source: eq. 5. Ties go to the lowest index.
    """
    places = Places.of(state == mask_id, len(logits))
    size = portion or max(1, PORTION // logits.shape[1])
    parts = _log_p(logits, rule, size)
    drawn = [
        _propose(log_p(), noise_m)
        for log_p, noise_m in zip(parts, places.pack(uniform[:, 0]).split(size), strict=True)
    ]
    proposal_M, logp_M, entropy_M = (torch.cat(column) for column in zip(*drawn, strict=True))
    score_M, noise_M = rule.score(logits, proposal_M, logp_M), places.pack(uniform[:, 1])
    order_M = rule.order(Candidates(score_M, noise_M, places.columns, rule.grid), rule.tau)
    reveal_rank_BN = rank(places.unpack(order_M, -torch.inf), rule.num_revealed)
    revealed_BN = reveal_rank_BN >= 0
    threshold_B, ties_lose_BN = border(places.unpack(logp_M, torch.inf), revealed_BN)
    edges = zip(
        threshold_B[places.rows].split(size),
        places.pack(ties_lose_BN).split(size),
        strict=True,
    )
    kept = [_remaskable(log_p(), *edge, record_sets) for log_p, edge in zip(parts, edges, strict=True)]
    possible_M, sets_MW = (torch.cat(column) for column in zip(*kept, strict=True))
    return Unmasked(
        state=state,
        proposals=state.masked_scatter(places.mask, proposal_M),
        reveal_rank=reveal_rank_BN,
        floored=places.unpack(~possible_M, False) & ~revealed_BN,
        # fp64, so that its logarithm rounds back to the very log p that set it
        threshold=threshold_B.double().exp(),
        entropy=entropy_M.view(len(state), -1).mean(dim=1),
        logp=places.unpack(logp_M, 0.0),
        sets=places.unpack(sets_MW, 0),
        completions=state.masked_scatter(places.mask, logits.argmax(dim=-1))
        if record_completions
        else state[:, :0],
    )


def _log_p(logits: Tensor, rule: Rule, portion: int) -> list[Callable[[], Tensor]]:
    """Compute log p portion by portion, when it is asked for; where there is one portion only, once."""
    parts = logits.split(portion)
    if len(parts) == 1:
        whole = _softened(logits, rule)
        return [lambda: whole]
    return [partial(_softened, part, rule) for part in parts]


def _softened(logits: Tensor, rule: Rule) -> Tensor:
    return peaked(logits) if rule.greedy else log_softmax(tempered(logits, rule.temperature))


def _propose(log_p: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Propose a code per position: Float [M, V], Float [M] -> it, its log p, and the entropy of p, each [M]."""
    p_MV = log_p.exp()
    proposal_M = _inverse_cdf(p_MV, uniform)
    entropy_M = -(p_MV * log_p.clamp(min=NOTHING)).sum(dim=-1)  # p log p is 0 where p is
    return proposal_M, pick(log_p, proposal_M), entropy_M


def _remaskable(
    log_p: Tensor, threshold: Tensor, ties_lose: Tensor, record_sets: bool
) -> tuple[Tensor, Tensor]:
    """Tell where any code would have been remasked, Bool [M], and which, packed: uint8 [M, W], W = 0 if not wanted."""
    possible_M = remaskable(log_p.amin(dim=-1, keepdim=True), threshold, ties_lose)[
        :, 0
    ]  # if any, the least likely
    none_MV = log_p.new_zeros(len(log_p), 0, dtype=torch.uint8)
    return possible_M, pack_bits(remaskable(log_p, threshold, ties_lose)) if record_sets else none_MV


def _inverse_cdf(p: Tensor, uniform: Tensor) -> Tensor:
    """Sample a code per position: Float [M, V], Float [M] in [0, 1) -> Long [M]. Never a code of p = 0."""
    cdf_MV = p.double().cumsum(dim=-1)
    target_M1 = uniform.double()[:, None] * cdf_MV[:, -1:]
    return torch.searchsorted(cdf_MV, target_M1, right=True).squeeze(-1).clamp(max=p.shape[-1] - 1)
