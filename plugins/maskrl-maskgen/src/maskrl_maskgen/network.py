"""MaskGen-VQ's network: a row of codes and a text in two streams that attend to each other.

Source: Kim et al. 2025 (arXiv 2501.07730); the names of weights are the published ones. The blocks are diffusers'.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.models.attention import JointTransformerBlock
from diffusers.models.normalization import AdaLayerNormContinuous
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskrl_maskgen.sizes import Generator, Vq

SLOWEST = 1000  # the longest period of a sinusoid is 2 pi of these
SCALE = 100  # of an aesthetic score, before its sinusoids


class MaskGenNetwork(nn.Module):
    """Predict the codes of masked places; it is not told the step."""

    def __init__(self, vq: Vq, sizes: Generator) -> None:
        super().__init__()
        width, heads = sizes.decoder_embed_dim, sizes.decoder_num_heads
        self.num_codes, self.micro_width = vq.codebook_size, sizes.micro_condition_embed_dim
        self.text_embed_proj = nn.Linear(vq.text_embed_dim, width)
        self.cond_pooled_proj = nn.Linear(vq.text_embed_dim + self.micro_width, width)
        last = sizes.decoder_depth - 1
        self.blocks = nn.ModuleList(
            JointTransformerBlock(width, heads, width // heads, context_pre_only=depth == last)
            for depth in range(sizes.decoder_depth)
        )
        self.norm = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        # codes, the mask, and classes and their absence, which no text-to-image model uses
        self.embeddings = nn.Embedding(vq.codebook_size + sizes.condition_num_classes + 2, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, vq.num_latent_tokens, width))
        self.is_checkpointed = False

    @classmethod
    def unfilled(cls, vq: Vq, sizes: Generator) -> MaskGenNetwork:
        """Build it without memory for its weights."""
        with init_empty_weights():
            return cls(vq, sizes)

    def forward(
        self,
        tokens: Tensor,
        memory: Tensor,
        pooled: Tensor,
        aesthetic: float,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Predict codes.

        Args:
            tokens: Long [B, N], codes or the mask, which is the number of codes.
            memory: Float [B, P, D], what the text encoder says of each word.
            pooled: Float [B, D], and of the text.
            aesthetic: the score that the network is told of its own images.
            positions: Bool [B, N], where codes are wanted; None: everywhere.

        Returns:
            Float [B, N, V], or Float [M, V] at ``positions``, row by row. The head is the table of codes itself.
        """
        image, text = self.embeddings(tokens) + self.pos_embed, self.text_embed_proj(memory)
        about = sinusoids(aesthetic * SCALE, self.micro_width).to(pooled).expand(len(pooled), -1)
        condition = self.cond_pooled_proj(torch.cat([pooled, about], dim=-1))
        for block in self.blocks:
            text, image = self._run(block, image, text, condition)
        image = self.norm(image, condition)
        if positions is not None:
            image = image[positions]
        logits: Tensor = image @ self.embeddings.weight[: self.num_codes].T
        return logits

    def checkpoint_activations(self) -> None:
        """Compute the activations of the blocks again in the backward pass."""
        self.is_checkpointed = True

    def _run(self, block: Any, *inputs: Tensor) -> Any:
        if self.is_checkpointed and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False, preserve_rng_state=False)
        return block(*inputs)


def sinusoids(value: float, width: int) -> Tensor:
    """Spread a number over sines and then cosines of periods that grow: Float [width]; an odd width ends with 0."""
    half = width // 2
    rates = torch.exp(-math.log(SLOWEST) * torch.arange(half, dtype=torch.float32) / half)
    spread = torch.cat([torch.sin(value * rates), torch.cos(value * rates)])
    return nn.functional.pad(spread, (0, width % 2))
