"""Weights and pictures that are formulas of a name and an index: the scores of image-reward's fixture are of these."""

import math
import zlib

import numpy as np
import torch


def noise(name, *shape):
    """Uniform in [-1, 1): an integer hash of a name and an index, the same on every machine."""
    low = np.uint64(0xFFFFFFFF)
    x = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(zlib.crc32(name.encode()))) & low
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & low
    return torch.from_numpy(x.astype(np.float64) / 2**31 - 1).reshape(shape)


def weight(name, shape):
    """The tensor of this name in a published file."""
    values = noise(name, *shape)
    if ("embeddings." in name and len(shape) == 2) or name.endswith(("pos_embed", "cls_token")):
        return values.float()
    if len(shape) == 1:
        return (0.1 * values + (1 if name.endswith("weight") else 0)).float()
    return (1.5 * math.sqrt(3 / math.prod(shape[1:])) * values).float()


def picture(name, height, width):
    """uint8 [height, width, 3]: blocks of 8 pixels, with some noise in them."""
    rows, columns = math.ceil(height / 8), math.ceil(width / 8)
    blocks = noise(f"{name}, blocks", rows, columns, 3).repeat_interleave(8, 0).repeat_interleave(8, 1)
    values = 0.8 * blocks[:height, :width] + 0.2 * noise(name, height, width, 3)
    return ((values + 1) * 128).floor().clamp(0, 255).to(torch.uint8).numpy()
