"""Images for an evaluation, batch by batch, each from its own stream: the batch size changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from maskrl.grpo import answers
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
        chosen = [prompts[i] for i in indices], [streams[i] for i in indices]
        yield indices, paint(generator, *chosen, num_steps, sampling, guidance)


def sample_pairs(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    stream: Stream,
    num_steps: int,
    sampling: Sampling,
) -> Tensor:
    """Paint a batch of an evaluation: image i of prompt p always comes from ``stream.child("eval", p, i)``.

    Returns:
        Float [len(pairs), 3, H, W] in [0, 1], on the CPU; without pairs Float [0].
    """
    if not pairs:
        return torch.empty(0)
    asked = [prompts[p] for p, _ in pairs]
    streams = [stream.child("eval", p, i) for p, i in pairs]
    return paint(generator, asked, streams, num_steps, sampling, sampling.guidance_eval)


@torch.no_grad()
def paint(
    generator: MaskedGenerator,
    prompts: Sequence[Prompt],
    streams: Sequence[Stream],
    num_steps: int,
    sampling: Sampling,
    guidance: float,
) -> Tensor:
    """Make one image per prompt and stream at once: Float [B, 3, H, W] in [0, 1], on the CPU."""
    unique = list({id(prompt): prompt for prompt in prompts}.values())
    row_of = {id(prompt): row for row, prompt in enumerate(unique)}
    rows = torch.tensor([row_of[id(prompt)] for prompt in prompts])
    condition = answers.encode(generator, unique).select(rows)
    paths = rollout(generator, condition, streams, num_steps, sampling, guidance)
    return answers.decode(generator, paths.tokens, condition).cpu()
