"""The parts of Meissonic's transformer, under the names that its published weights have.

Shapes: B rows, S positions of text and image together, D the width. ``told`` is Float [B, D], what a block is told of
the time, the text as a whole and the image's make: it moves, scales and gates what the block computes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-6


def waves(values: Tensor, width: int = 256) -> Tensor:
    """Write numbers as cosines and sines of many lengths: Float [K] -> Float [K, width].

    In fp32 and in this order of operations: at the 63,000 of a first step of 64 the angles are rounded in the fourth
    digit, and the network has learnt the rounded ones.
    """
    angles = values.float()[:, None] * frequencies(width // 2, values.device)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def frequencies(number: int, device: torch.device) -> Tensor:
    """Return 10,000 ** -(i / number), Float [number], of which processors choose the last bit differently."""
    exponents = -math.log(10_000) * torch.arange(number, dtype=torch.float32, device=device) / number
    return exponents.exp()


def rotations(places: Tensor, widths: tuple[int, ...]) -> Tensor:
    """Return the rotation of each pair of channels of a head, cosine and sine: Long [S, axes] -> Float [2, S, pairs].

    ``widths`` is how many channels each axis has; angles are computed in fp64.
    """
    angles = []
    for place, width in zip(places.double().unbind(dim=1), widths, strict=True):
        powers = torch.arange(0, width, 2, dtype=torch.float64, device=places.device) / width
        angles.append(place[:, None] / 10_000**powers)
    turned = torch.cat(angles, dim=1)
    return torch.stack([turned.cos(), turned.sin()]).float()


def rotate(heads: Tensor, rotation: Tensor) -> Tensor:
    """Turn neighbouring channels: Float [B, heads, S, width], Float [2, S, width / 2] -> as it came."""
    cos, sin = rotation
    left, right = heads.float().unflatten(-1, (-1, 2)).unbind(dim=-1)
    turned = torch.stack([left * cos - right * sin, right * cos + left * sin], dim=-1)
    return turned.flatten(-2).to(heads.dtype)


class Pointwise(nn.Conv2d):
    """A convolution of one pixel, on channels that come last: Float [..., in] -> Float [..., out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it, as the linear layer that it is."""
        return F.linear(x, self.weight.flatten(1))


class Perceptron(nn.Module):
    """Two linear layers with a SiLU between them."""

    def __init__(self, inputs: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, width, bias)
        self.linear_2 = nn.Linear(width, width, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, inputs] -> Float [B, width]."""
        made: Tensor = self.linear_2(F.silu(self.linear_1(x)))
        return made


class Modulation(nn.Module):
    """What ``told`` makes of a block: ``parts`` vectors, the first two of which move and scale a normed input."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, x: Tensor, told: Tensor) -> tuple[Tensor, ...]:
        """Float [B, S, D], Float [B, D] -> the input, moved and scaled, and the other parts, Float [B, 1, D] each."""
        shift, scale, *others = self.linear(F.silu(told))[:, None].chunk(self.parts, dim=2)
        return modulated(x, shift, scale), *others


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Norm, scale and move."""
    return F.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


class Widened(nn.Module):
    """A linear layer and a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, S, D] -> Float [B, S, 4 D]."""
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """A hidden layer four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        nothing = nn.Identity()  # where dropout was: the names in the file count it
        self.net = nn.Sequential(Widened(width), nothing, nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Float [B, S, D] -> Float [B, S, D]."""
        made: Tensor = self.net(x)
        return made


class Heads(nn.Module):
    """Queries, keys and values of a sequence; queries and keys are normed, head by head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(width // heads, eps=EPS) for _ in range(2))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float [B, S, D] -> three of Float [B, heads, S, D / heads]."""
        query, key, value = (self.split(layer(x)) for layer in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(query), self.norm_k(key), value

    def split(self, x: Tensor) -> Tensor:
        """Float [B, S, D] -> Float [B, heads, S, D / heads]."""
        heads: Tensor = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return heads


def attend(query: Tensor, key: Tensor, value: Tensor, rotation: Tensor) -> Tensor:
    """Let every position look at every other: three of Float [B, heads, S, D / heads] -> Float [B, S, D]."""
    query, key = (rotate(part, rotation).to(value.dtype) for part in (query, key))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class SingleAttention(Heads):
    """Attention of one sequence, without a last linear layer."""

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Float [B, S, D] -> Float [B, S, D]."""
        return attend(*self.project(x), rotation)


class JointAttention(Heads):
    """Attention of text and image to both, each with layers of its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (nn.RMSNorm(width // heads, eps=EPS) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_add_out = nn.Linear(width, width)

    def forward(self, image: Tensor, text: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """Image Float [B, N, D] and text Float [B, P, D] -> the same; in ``rotation`` the text comes first."""
        layers = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
        query, key, value = (self.split(layer(text)) for layer in layers)
        of_text = self.norm_added_q(query), self.norm_added_k(key), value
        pairs = zip(of_text, self.project(image), strict=True)
        query, key, value = (torch.cat(pair, dim=2) for pair in pairs)
        seen = attend(query, key, value, rotation)
        text_sees, image_sees = seen.split([text.shape[1], image.shape[1]], dim=1)
        return self.to_out[0](image_sees), self.to_add_out(text_sees)
