"""Images for an evaluation, batch by batch, each from its own stream: the batch size changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from maskrl.grpo.config import Sampling
from maskrl.grpo.rollout import rollout
from maskrl.interfaces import MaskedGenerator
from maskrl.types import Prompt, Stream


def generate(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    streams: Sequence[Stream],
    num_steps: int,
    sampling: Sampling,
    guidance: float,
    batch: int,
) -> Iterator[tuple[range, Tensor]]:
    """Make one image per prompt and stream, in order.

    Args:
        generator: what paints.
        prompts: one per image; a prompt object that is repeated in a batch is encoded once.
        streams: one per image.
        num_steps: T, unmasking steps.
        sampling: schedule and temperatures.
        guidance: w in (1 + w) * cond - w * uncond.
        batch: images per rollout; memory and speed only.

    Yields:
        The indices of a batch, and its images: Float [batch, 3, H, W] in [0, 1], on the CPU.
    """
    for start in range(0, len(prompts), batch):
        indices = range(start, min(start + batch, len(prompts)))
        chosen = [prompts[i] for i in indices]
        unique = list({id(prompt): prompt for prompt in chosen}.values())
        row_of = {id(prompt): row for row, prompt in enumerate(unique)}
        rows = torch.tensor([row_of[id(prompt)] for prompt in chosen])
        with torch.no_grad():
            condition = generator.encode(unique).select(rows)
            batch_streams = [streams[i] for i in indices]
            paths = rollout(generator, condition, batch_streams, num_steps, sampling, guidance)
            images = generator.decode(paths.tokens, condition)
        yield indices, images.float().cpu()
