"""Meissonic's transformer: text and image side by side, first in layers of their own, then in shared ones.

Attribute names are those of the published checkpoint's keys. A code is one position; where the network halves the
plane, four codes are one position inside.

Source: Bai et al. 2024 (arXiv 2410.08261), and the layout of ``MeissonFlow/Meissonic``.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskrl_meissonic.layers import (
    EPS,
    FeedForward,
    JointAttention,
    Modulation,
    Perceptron,
    Pointwise,
    SingleAttention,
    modulated,
    rotations,
    waves,
)

WAVES = 256  # channels that a number is written in
NUMBERS = 5  # about an image: width, height, crop from the top and from the left, aesthetic score


class Sizes(BaseModel):
    """What of a transformer's ``config.json`` says how it is built; the defaults are the public class's."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768
    axes_dims_rope: tuple[int, int, int] = (16, 56, 56)
    vocab_size: int = 8256
    codebook_size: int = 8192
    downsample: bool = False
    upsample: bool = False
    guidance_embeds: bool = False

    @property
    def width(self) -> int:
        """Channels of a position."""
        return self.attention_head_dim * self.num_attention_heads

    @property
    def halving(self) -> int:
        """How many codes lie side by side in one position."""
        return 2 if self.downsample else 1

    @model_validator(mode="after")
    def _fit(self) -> Self:
        wrong = {
            "guidance_embeds": self.guidance_embeds,
            "downsample without upsample": self.downsample != self.upsample,
            f"pooled_projection_dim = {self.pooled_projection_dim} is not the width {self.width}": (
                self.pooled_projection_dim != self.width
            ),
            f"axes_dims_rope = {self.axes_dims_rope} are not attention_head_dim = {self.attention_head_dim}": (
                sum(self.axes_dims_rope) != self.attention_head_dim
            ),
        }
        for complaint, applies in wrong.items():
            if applies:
                raise ValueError(f"no transformer of Meissonic's is built so: {complaint}")
        return self


class Transformer(nn.Module):
    """Codes, a text, numbers about the image and the time -> logits of every code."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self._checkpointing = sizes, False
        width, heads = sizes.width, sizes.num_attention_heads
        self.time_text_embed = TimeAndText(width)
        self.context_embedder = nn.Linear(sizes.joint_attention_dim, width)
        self.transformer_blocks = nn.ModuleList(JointBlock(width, heads) for _ in range(sizes.num_layers))
        self.single_transformer_blocks = nn.ModuleList(
            SingleBlock(width, heads) for _ in range(sizes.num_single_layers)
        )
        self.embed = Embed(sizes.vocab_size, width)
        self.mlm_layer = Head(width, sizes.codebook_size)
        self.cond_embed = Perceptron(NUMBERS * WAVES + sizes.pooled_projection_dim, width, bias=False)
        self.encoder_proj_layer_norm = nn.RMSNorm(width, eps=EPS)
        self.project_to_hidden_norm = nn.RMSNorm(width, eps=EPS)
        self.project_to_hidden = nn.Linear(width, width, bias=False)
        self.project_from_hidden_norm = nn.RMSNorm(width, eps=EPS)
        self.project_from_hidden = nn.Linear(width, width, bias=False)
        self.down_block, self.up_block = nn.ModuleDict(), nn.ModuleDict()
        if sizes.downsample:
            self.down_block["downsample"] = Resample(width, nn.Conv2d)
            self.up_block["upsample"] = Resample(width, nn.ConvTranspose2d)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        pooled: Tensor,
        about: Tensor,
        time: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            tokens: Long [B, h, w], codes or the mask.
            memory: Float [B, P, joint_attention_dim], the text, position by position.
            pooled: Float [B, pooled_projection_dim], the text as a whole.
            about: Float [B, 5], width, height, crops and aesthetic score.
            time: Float [B], steps that are left after this one: T - 1 ... 0.
            positions: Bool [B, h * w], those wanted; None: all.

        Returns:
            Float [B, h * w, V], or [M, V] at the wanted positions.
        """
        numbers = waves(about.flatten(), WAVES).view(len(about), -1)
        told = self.time_text_embed(1000 * time, self.cond_embed(torch.cat([pooled, numbers], dim=1)))
        text = self.encoder_proj_layer_norm(self.context_embedder(memory))
        plane = self.embed(tokens)
        if self.sizes.downsample:
            plane = self.down_block["downsample"](plane)
        image = self.project_to_hidden(self.project_to_hidden_norm(plane.flatten(1, 2)))
        rows, columns = plane.shape[1:3]
        hidden = self._blocks(image, text, told, places(text.shape[1], rows, columns, tokens.device))
        plane = self.project_from_hidden(self.project_from_hidden_norm(hidden)).view_as(plane)
        if self.sizes.upsample:
            plane = self.up_block["upsample"](plane)
        wanted = plane.flatten(1, 2)
        logits: Tensor = self.mlm_layer(wanted if positions is None else wanted[positions])
        return logits

    def _blocks(self, image: Tensor, text: Tensor, told: Tensor, at: Tensor) -> Tensor:
        rotation = rotations(at, self.sizes.axes_dims_rope)
        for block in self.transformer_blocks:
            image, text = self._run(block, image, text, told, rotation)
        both: Tensor = torch.cat([text, image], dim=1)
        for block in self.single_transformer_blocks:
            both = self._run(block, both, told, rotation)
        return both[:, text.shape[1] :]

    def _run(self, block: nn.Module, *given: Tensor) -> Any:
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
        return block(*given)

    def checkpoint_activations(self) -> None:
        """Keep of every block the input only, from now on."""
        self._checkpointing = True


def places(texts: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Say where positions are: Long [P + rows * columns, 3]: nothing, row, column; the text's are all 0."""
    row, column = (torch.arange(n, device=device) for n in (rows, columns))
    of_image = torch.cartesian_prod(row, column)
    return nn.functional.pad(of_image, (1, 0, texts, 0))


class TimeAndText(nn.Module):
    """What all blocks are told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.timestep_embedder, self.text_embedder = Perceptron(WAVES, width), Perceptron(width, width)

    def forward(self, time: Tensor, text: Tensor) -> Tensor:
        """Float [B], Float [B, D] -> Float [B, D]."""
        told: Tensor = self.timestep_embedder(waves(time, WAVES)) + self.text_embedder(text)
        return told


class Embed(nn.Module):
    """Codes to vectors."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embeddings, self.layer_norm = nn.Embedding(vocabulary, width), nn.RMSNorm(width, eps=EPS)
        self.conv = Pointwise(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Long [B, h, w] -> Float [B, h, w, D]."""
        vectors: Tensor = self.conv(self.layer_norm(self.embeddings(tokens)))
        return vectors


class Head(nn.Module):
    """Vectors to logits, position by position."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Pointwise(width, width), Pointwise(width, codes)
        self.layer_norm = nn.RMSNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Float [..., D] -> Float [..., V]."""
        logits: Tensor = self.conv2(self.layer_norm(self.conv1(x)))
        return logits


class Resample(nn.Module):
    """Make one position of 2 x 2, or 2 x 2 of one."""

    def __init__(self, width: int, kind: type[nn.Conv2d | nn.ConvTranspose2d]) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS)
        self.conv = kind(width, width, kernel_size=2, stride=2, bias=False)

    def forward(self, plane: Tensor) -> Tensor:
        """Float [B, h, w, D] -> Float [B, h / 2, w / 2, D], or [B, 2 h, 2 w, D]."""
        made: Tensor = self.conv(self.norm(plane).movedim(3, 1))
        return made.movedim(1, 3)


class JointBlock(nn.Module):
    """Text and image look at both; all else is done to each by layers of its own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm1_context = Modulation(width, 6), Modulation(width, 6)
        self.attn = JointAttention(width, heads)
        self.ff, self.ff_context = FeedForward(width), FeedForward(width)

    def forward(self, image: Tensor, text: Tensor, told: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        """Image Float [B, N, D] and text Float [B, P, D] -> the same."""
        ready_image, *of_image = self.norm1(image, told)
        ready_text, *of_text = self.norm1_context(text, told)
        seen_image, seen_text = self.attn(ready_image, ready_text, rotation)
        return added(image, seen_image, self.ff, *of_image), added(text, seen_text, self.ff_context, *of_text)


def added(
    x: Tensor, seen: Tensor, ff: nn.Module, gate: Tensor, shift: Tensor, scale: Tensor, gate_ff: Tensor
) -> Tensor:
    """Add what attention found, then what a hidden layer makes of it."""
    x = x + gate * seen
    done: Tensor = x + gate_ff * ff(modulated(x, shift, scale))
    return done


class SingleBlock(nn.Module):
    """Attention and a hidden layer side by side, on text and image as one sequence."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm, self.attn = Modulation(width, 3), SingleAttention(width, heads)
        self.proj_mlp, self.proj_out = nn.Linear(width, 4 * width), nn.Linear(5 * width, width)

    def forward(self, both: Tensor, told: Tensor, rotation: Tensor) -> Tensor:
        """Float [B, P + N, D] -> the same."""
        ready, gate = self.norm(both, told)
        hidden = nn.functional.gelu(self.proj_mlp(ready), approximate="tanh")
        done: Tensor = both + gate * self.proj_out(torch.cat([self.attn(ready, rotation), hidden], dim=2))
        return done
