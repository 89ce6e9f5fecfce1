"""Probabilities of proposals, and the border between revealed and remasked, for the sampler and its scorers.

Sampler and scorer must agree to the last bit on what ties, so each expression stands here once.
"""

from __future__ import annotations

import torch
from torch import Tensor


def log_softmax(logits: Tensor) -> Tensor:
    """Float [M, V] -> log p, nats, fp32 (fp64 for fp64 logits), whatever the autocast."""
    return torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def pick(log_p: Tensor, codes: Tensor) -> Tensor:
    """Log p of one code per position: Float [M, V], Long [M] in [0, V) -> Float [M]."""
    return log_p.gather(-1, codes[:, None]).squeeze(-1)


def border(logp: Tensor, revealed: Tensor) -> tuple[Tensor, Tensor]:
    """Find the least confident revealed position of each row.

    Args:
        logp: Float [B, N], nats, of the proposals; read at revealed positions only.
        revealed: Bool [B, N].

    Returns:
        log min(cs), Float [B]; and Bool [B, N], the positions behind i*, the last revealed that attains it.

    Source: min(cs_t) of eq. 14; i* is ours, because ties go to the lowest index.
    """
    threshold_B = logp.masked_fill(~revealed, torch.inf).amin(dim=1)
    index_N = torch.arange(logp.shape[1], device=logp.device)
    attained_BN = revealed & (logp == threshold_B[:, None])
    last_B = torch.where(attained_BN, index_N, -1).amax(dim=1)
    return threshold_B, index_N > last_B[:, None]


def remaskable(log_p: Tensor, log_threshold: Tensor, ties_lose: Tensor) -> Tensor:
    """Find the codes with which a position would have been remasked: eq. 14's set {k}.

    Args:
        log_p: Float [M, V], nats.
        log_threshold: Float [M], nats: log min(cs) of the row each position belongs to.
        ties_lose: Bool [M], whether the position lies behind i*: there a tie loses, so ``<=`` instead of ``<``.

    Returns:
        Bool [M, V].
    """
    bound_M1 = log_threshold[:, None]
    return (log_p < bound_M1) | (ties_lose[:, None] & (log_p == bound_M1))


def pack_bits(flags: Tensor) -> Tensor:
    """Bool [M, V] -> uint8 [M, ceil(V / 8)], the first flag in the lowest bit."""
    padded_MW8 = torch.nn.functional.pad(flags, (0, -flags.shape[1] % 8)).unflatten(1, (-1, 8))
    places_8 = torch.arange(8, dtype=torch.uint8, device=flags.device)
    return torch.bitwise_left_shift(padded_MW8.byte(), places_8).sum(-1).byte()


def unpack_bits(packed: Tensor, num_flags: int) -> Tensor:
    """Undo :func:`pack_bits`: uint8 [M, ceil(V / 8)] -> Bool [M, V]."""
    places_8 = torch.arange(8, dtype=torch.uint8, device=packed.device)
    bits_MW8 = torch.bitwise_right_shift(packed[..., None], places_8).bitwise_and(1)
    return bits_MW8.flatten(1)[:, :num_flags].bool()
