"""MAGVIT-v2, the image tokenizer of Show-o: a convolutional autoencoder around a look-up-free quantizer.

Attribute names are those of the published checkpoint's keys; sizes come from a config, the published ones by default.

Source: Yu et al. 2023 (arXiv 2310.05737), and the layout of ``showlab/magvitv2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class MagvitConfig(BaseModel):
    """Sizes of the autoencoder; the defaults are those of ``showlab/magvitv2``, which ships no config of them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    channels: int = 128
    encoder_multipliers: tuple[int, ...] = (1, 2, 2, 4, 4)
    encoder_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    decoder_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)
    bits: int = 13
    norm_groups: int = 32

    @property
    def downsampling(self) -> int:
        """Pixels per token along each axis."""
        return int(2 ** (len(self.encoder_multipliers) - 1))

    @property
    def num_codes(self) -> int:
        """V, codes of the tokenizer."""
        return int(2**self.bits)


class ResnetBlock(nn.Module):
    """Two normalised 3x3 convolutions beside a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w]."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)
        return out


class AttnBlock(nn.Module):
    """Single-head self-attention over all places of a feature map."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> the same shape."""
        normed = self.norm(x)
        q, k, v = (part(normed).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.proj_out(attended.transpose(1, 2).reshape(x.shape))
        return out


class Downsample(nn.Module):
    """Halve the resolution; the padding is one-sided, right and bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h/2, w/2]."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Double the resolution by repetition and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, 2h, 2w]."""
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class _Level(nn.Module):
    """The blocks of one resolution and, but for the last level, the way to the next; no blocks change no width."""

    def __init__(self, in_channels: int, out_channels: int, count: int, groups: int) -> None:
        super().__init__()
        sizes = [in_channels] + [out_channels] * count
        self.block = nn.ModuleList(ResnetBlock(a, b, groups) for a, b in pairwise(sizes))
        self.width = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class _Middle(nn.Module):
    """The blocks at the lowest resolution."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, groups)
        self.attn_1 = AttnBlock(channels, groups)
        self.block_2 = ResnetBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Pixels to pre-quantisation features."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.encoder_multipliers]
        self.conv_in = nn.Conv2d(3, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        previous = config.channels
        for width, count in zip(widths, config.encoder_blocks, strict=True):
            level = _Level(previous, width, count, config.norm_groups)
            previous = level.width
            if len(self.down) < len(widths) - 1:
                level.downsample = Downsample(previous)
            self.down.append(level)
        self.mid = _Middle(previous, config.norm_groups)
        self.norm_out = nn.GroupNorm(config.norm_groups, previous, eps=1e-6)
        self.conv_out = nn.Conv2d(previous, config.bits, 3, padding=1)
        self.quant_conv = nn.Conv2d(config.bits, config.bits, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in [-1, 1] -> [B, bits, h, w]."""
        x = self.conv_in(pixels)
        for level in self.down:
            x = level(x)
        x = F.silu(self.norm_out(self.mid(x)))
        out: Tensor = self.quant_conv(self.conv_out(x))
        return out


class Decoder(nn.Module):
    """Quantised features to pixels."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        widths = [config.channels * m for m in config.decoder_multipliers]
        previous = widths[-1]
        self.post_quant_conv = nn.Conv2d(config.bits, config.bits, 1)
        self.conv_in = nn.Conv2d(config.bits, previous, 3, padding=1)
        self.mid = _Middle(previous, config.norm_groups)
        levels: list[nn.Module] = []
        for width, count in reversed(list(zip(widths, config.decoder_blocks, strict=True))):
            level = _Level(previous, width, count, config.norm_groups)
            previous = level.width
            if len(levels) < len(widths) - 1:
                level.upsample = Upsample(previous)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = nn.GroupNorm(config.norm_groups, previous, eps=1e-6)
        self.conv_out = nn.Conv2d(previous, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[B, bits, h, w] of +-1 -> [B, 3, H, W], about [-1, 1]."""
        x = self.mid(self.conv_in(self.post_quant_conv(z)))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class Quantizer(nn.Module):
    """Look-up-free quantisation: the sign of each channel is a bit; channel 0 is the most significant."""

    embedding: Tensor
    power_vals: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = 2 ** torch.arange(bits - 1, -1, -1)
        codes = torch.arange(2**bits)[:, None] & powers
        self.register_buffer("embedding", (codes > 0).float() * 2 - 1)
        self.register_buffer("power_vals", powers)

    def codes(self, z: Tensor) -> Tensor:
        """Float [B, bits, h, w] -> Long [B, h * w]."""
        return ((z > 0) * self.power_vals[:, None, None]).sum(dim=1).flatten(1)

    def features(self, codes: Tensor, grid: tuple[int, int]) -> Tensor:
        """Long [B, h * w] -> Float [B, bits, h, w] of +-1."""
        flat = self.embedding[codes].transpose(1, 2)
        return flat.reshape(flat.shape[0], flat.shape[1], *grid)


class Magvit(nn.Module):
    """The tokenizer: images to codes and back."""

    def __init__(self, config: MagvitConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Quantizer(config.bits)

    def encode(self, images: Tensor) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] -> codes Long [B, N]."""
        codes: Tensor = self.quantize.codes(self.encoder(images * 2 - 1))
        return codes

    def decode(self, codes: Tensor, grid: Sequence[int]) -> Tensor:
        """Long [B, N], ``grid`` (rows, columns) -> Float [B, 3, H, W] in [0, 1]."""
        pixels: Tensor = self.decoder(self.quantize.features(codes, (grid[0], grid[1])))
        return ((pixels + 1) / 2).clamp(0, 1)
