"""Pixels of 8 bits, as image files hold them: what is written and what is judged is rounded alike."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def rounded(images: Tensor) -> Tensor:
    """Round to what a file would hold: Float [...] in [0, 1] -> fp32 [...]."""
    return torch.round(images.float() * 255) / 255


def to_bytes(images: Tensor) -> NDArray[np.uint8]:
    """Float [..., 3, H, W] in [0, 1] -> uint8 [..., H, W, 3], rounded."""
    levels = torch.round(images.detach().float() * 255).to("cpu", torch.uint8)
    return np.asarray(levels.movedim(-3, -1).numpy())
