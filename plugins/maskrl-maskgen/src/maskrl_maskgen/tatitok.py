"""TA-TiTok's way from codes to pixels: a transformer that reads codes and text, and paints a patch at each mask.

Source: Kim et al. 2025 (arXiv 2501.07730); the names of weights are the published ones. Its encoder is not needed here.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from maskrl_maskgen.sizes import Vq


class TaTiTok(nn.Module):
    """The codebook and the decoder."""

    def __init__(self, vq: Vq, image_size: int) -> None:
        super().__init__()
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(vq.codebook_size, vq.token_size)})
        self.decoder = Decoder(vq, image_size)

    @classmethod
    def unfilled(cls, vq: Vq, image_size: int) -> TaTiTok:
        """Build it without memory for its weights."""
        with init_empty_weights():
            return cls(vq, image_size)

    def forward(self, codes: Tensor, text: Tensor) -> Tensor:
        """Long [B, N] and Float [B, P, D], the text encoder's last layer -> Float [B, 3, H, W], about in [0, 1]."""
        painted: Tensor = self.decoder(self.quantize["embedding"](codes), text)
        return painted


class Decoder(nn.Module):
    """A ViT over a class token, a mask for each patch, the codes and the text."""

    def __init__(self, vq: Vq, image_size: int) -> None:
        super().__init__()
        width, layers, heads = vq.decoder_sizes
        self.patch, self.side = vq.vit_dec_patch_size, image_size // vq.vit_dec_patch_size
        self.decoder_embed = nn.Linear(vq.token_size, width)
        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(self.side**2 + 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(vq.num_latent_tokens, width))
        self.text_guidance_proj = nn.Linear(vq.text_embed_dim, width)
        self.text_guidance_positional_embedding = nn.Parameter(torch.zeros(vq.text_context_length, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.ln_post = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Conv2d(width, 3 * self.patch**2, 1))
        self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, latents: Tensor, text: Tensor) -> Tensor:
        """Float [B, N, C] and Float [B, P, D] -> Float [B, 3, H, W]."""
        canvas = self.mask_token.expand(len(latents), self.side**2, -1)
        start = self.class_embedding.expand(len(latents), 1, -1)
        hidden = torch.cat(
            [
                torch.cat([start, canvas], dim=1) + self.positional_embedding,
                self.decoder_embed(latents) + self.latent_token_positional_embedding,
                self.text_guidance_proj(text) + self.text_guidance_positional_embedding,
            ],
            dim=1,
        )
        hidden = self.ln_pre(hidden)
        for layer in self.transformer:
            hidden = layer(hidden)
        patches = self.ln_post(hidden[:, 1 : 1 + self.side**2]).transpose(1, 2)
        pixels = self.ffn(patches.unflatten(2, (self.side, self.side)))
        whole: Tensor = self.conv_out(self._laid_out(pixels))
        return whole

    def _laid_out(self, pixels: Tensor) -> Tensor:
        """Lay patches side by side: Float [B, patch * patch * 3, h, w] -> Float [B, 3, h * patch, w * patch]."""
        split: Tensor = pixels.unflatten(1, (self.patch, self.patch, 3))
        return split.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


class Layer(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a way around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        wide = [
            ("c_fc", nn.Linear(width, 4 * width)),
            ("gelu", nn.GELU()),
            ("c_proj", nn.Linear(4 * width, width)),
        ]
        self.mlp = nn.Sequential(OrderedDict(wide))

    def forward(self, hidden: Tensor) -> Tensor:
        """Float [B, L, D] -> Float [B, L, D]."""
        normed = self.ln_1(hidden)
        hidden = hidden + self.attn(normed, normed, normed, need_weights=False)[0]
        out: Tensor = hidden + self.mlp(self.ln_2(hidden))
        return out
