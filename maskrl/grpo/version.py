"""Which weights a network has: a checksum of their bits, so that no counter can forget a change."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from maskrl.shards import part

PORTION = 2**18  # words of 8 bytes at a time: 4 MiB beside the weights


@torch.no_grad()
def version(module: nn.Module) -> int:
    """Return a number that is the same for the same parameters, and another where a bit, a place or a name differs.

    It does not depend on devices. Buffers are left out: some networks keep caches in them. Of a sharded network it is
    that of this process's part.
    """
    named = list(module.named_parameters())
    if not named:
        return 0
    device = named[0][1].device
    labels = [f"{name} {parameter.dtype} {list(parameter.shape)}" for name, parameter in named]
    hashes = [int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "little") for label in labels]
    keys = torch.tensor([number >> 1 | 1 for number in hashes], device=device)  # odd, of 63 bits
    digests = torch.stack([_digest(parameter).to(device) for _, parameter in named])
    return int((keys * digests).sum())


def _digest(parameter: Tensor) -> Tensor:
    """Sum the bits, eight bytes at a time, times a factor of their place: Long [], modulo 2^64; one pass.

    Nothing is copied but what does not begin or end at a word. Without factors, one number a bit up and another a bit
    down would look like nothing at all.
    """
    octets = part(parameter.detach()).flatten().view(torch.uint8)
    if octets.storage_offset() % 8 or len(octets) % 8:
        octets = pad(octets, (0, -len(octets) % 8))
    words_X = octets.view(torch.long)
    factors_X = _factors(min(len(words_X), PORTION), parameter.device)
    total = torch.zeros((), dtype=torch.long, device=parameter.device)
    for portion_X in words_X.split(PORTION):
        total = total * _ODD + (portion_X * factors_X[: len(portion_X)]).sum() + 1  # zeros count too
    return total


_ODD = 0x5851F42D4C957F2D


def _factors(count: int, device: torch.device) -> Tensor:
    """Return Long [count] that look drawn at random, the same on every device."""
    x = torch.arange(1, count + 1, device=device) * -0x61C8864680B583EB
    x = (x ^ (x >> 30)) * -0x40A7B892E31B1A47
    x = (x ^ (x >> 27)) * -0x6B2FB644ECCEEE15
    return (x ^ (x >> 31)) | 1
