"""In which order (image, step) pairs are run."""

from __future__ import annotations

import torch
from torch import Tensor


def in_passes(num_images: int, steps: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """List every pair once: its image, Long [num_images * k], and which of ``steps`` it has, Long [num_images * k].

    Prompt by prompt, so that a pass has few texts to read; and of a prompt the first step of every image before the
    others: nothing is painted there yet, so a generator may run them as one where they lie in one micro-batch.

    Args:
        num_images: G of each prompt, side by side.
        steps: Long [k] in [0, T), the same of every image.
        group_size: G.
    """
    image_K = torch.arange(num_images).repeat_interleave(len(steps))
    column_K = torch.arange(len(steps)).repeat(num_images)
    is_later_K = (steps.cpu() > 0)[column_K]
    order_K = (2 * (image_K // group_size) + is_later_K).argsort(stable=True)
    return image_K[order_K], column_K[order_K]
