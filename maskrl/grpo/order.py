"""In which order (image, step) pairs are run."""

from __future__ import annotations

import torch
from torch import Tensor


def in_passes(num_images: int, steps: Tensor, group_size: int) -> Tensor:
    """Order pairs that stand image by image, step by step: Long [num_images * k], a permutation.

    Prompt by prompt, so that a pass has few texts to read; and of a prompt the first step of every image before the
    others: nothing is painted there yet, so a generator may run them as one where they lie in one micro-batch.

    Args:
        num_images: G of each prompt, side by side.
        steps: Long [k] in [0, T), the same of every image.
        group_size: G.
    """
    prompt_K = (torch.arange(num_images) // group_size).repeat_interleave(len(steps))
    is_later_K = (steps.cpu() > 0).repeat(num_images)
    return (2 * prompt_K + is_later_K).argsort(stable=True)
