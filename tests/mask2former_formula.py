"""Weights and pictures that are formulas of a name and an index: the fixtures of mmdet's Mask2Former are of these."""

import json
import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import Mask2FormerConfig, SwinConfig

from maskrl.geneval.mask2former import build_network
from maskrl.geneval.mmdet_checkpoint import convert, layout

FIXTURES = Path(__file__).with_name("fixtures")
REFERENCE = json.loads((FIXTURES / "mmdet_mask2former_reference.json").read_text(encoding="utf-8"))


def noise(name, *shape):
    """Uniform in [-1, 1): an integer hash of a name and an index, the same on every machine."""
    low = np.uint64(0xFFFFFFFF)
    x = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(zlib.crc32(name.encode()))) & low
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & low
    return torch.from_numpy(x.astype(np.float64) / 2**31 - 1).reshape(shape)


def weight(name, shape):
    """The tensor of mmdet's checkpoint that has this name."""
    if name.endswith("relative_position_index"):
        return position_index(math.isqrt(shape[0]))
    values = noise(name, *shape)
    if "query" in name or "level_" in name:
        return (4 * values).float()
    if "relative_position_bias_table" in name:
        return (0.5 * values).float()
    if "sampling_offsets.bias" in name:
        return (2 * values).float()
    if name.endswith("mask_feature.bias"):
        return torch.full(shape, 0.5)
    if name.endswith("mask_embed.4.bias"):
        return torch.full(shape, -1.8 * (64 / shape[0]) ** 2)
    if len(shape) == 1:
        return (0.1 * values + (1 if name.endswith("weight") else 0)).float()
    gain = next((g for part, g in {"cls_embed": 3, "mask_embed.4": 1}.items() if part in name), 1.5)
    return (gain * math.sqrt(3 / math.prod(shape[1:])) * values).float()


def position_index(window):
    """Long [window^2, window^2]: the row of the bias table for each pair of places in a window."""
    y, x = (grid.flatten() for grid in torch.meshgrid(*[torch.arange(window)] * 2, indexing="ij"))
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


def picture(name, height, width):
    """uint8 [height, width, 3]."""
    return ((noise(name, height, width, 3) + 1) * 128).floor().clamp(0, 255).to(torch.uint8).numpy()


@cache
def sizes():
    """The reduced sizes of the fixture."""
    s = REFERENCE["sizes"]
    backbone = SwinConfig(
        embed_dim=s["embed_dim"],
        depths=s["depths"],
        num_heads=s["num_heads"],
        window_size=s["window"],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=80,
        hidden_dim=s["hidden"],
        feature_size=s["hidden"],
        mask_feature_size=s["hidden"],
        encoder_feedforward_dim=s["effn"],
        dim_feedforward=s["dffn"],
        encoder_layers=s["enc"],
        decoder_layers=s["dec"],
        num_queries=s["queries"],
        num_attention_heads=s["heads"],
    )


def checkpoint():
    """The state dict of mmdet's network of these sizes."""
    return {entry.name: weight(entry.name, entry.shape) for entry in layout(sizes())}


@cache
def network():
    """Ours, from that state dict."""
    return build_network(convert(checkpoint(), sizes(), Path("formula.pth")), sizes())
