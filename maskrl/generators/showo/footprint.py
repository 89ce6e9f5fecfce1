"""How much memory a pass of Show-o takes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskrl.footprint import follow
from maskrl.generators.showo.asked import asked_evenly
from maskrl.generators.showo.network import KVCache, ShowoNetwork
from maskrl.types import Footprint, Pass


def footprint(network: ShowoNetwork, num_tokens: int, text_tokens: int, run: Pass) -> Footprint:
    """Follow a pass of a network of the meta device; texts that are not read in it have been read before."""
    run.prepare(network)
    if run.checkpointing:
        network.gradient_checkpointing_enable()

    def texts() -> list[Tensor]:
        return [torch.zeros(text_tokens, dtype=torch.long)] * max(run.texts, 1)

    def read() -> KVCache | None:
        return None if run.texts else network.read(texts(), end=text_tokens)

    return follow(network, run, read, lambda memory: _forward(network, num_tokens, texts(), memory, run))


def _forward(
    network: ShowoNetwork, num_tokens: int, texts: list[Tensor], memory: KVCache | None, run: Pass
) -> Tensor:
    """Predict codes as the generator does: rows of a text side by side, as many masked positions as are wanted."""
    rows = [run.rows // len(texts) + (i < run.rows % len(texts)) for i in range(len(texts))]
    if memory is None:
        memory = network.with_table(network.read(texts, end=len(texts[0])), run.rows * (num_tokens + 2))
    else:  # a rollout makes it once, and keeps it
        memory = replace(memory, table=network.tabulate())
    ids = torch.full((run.rows, num_tokens + 2), network.vocabulary.mask_id)
    asked = asked_evenly(run.rows, num_tokens, run.masked)
    return network.code_logits(network.forward_image(ids, rows, memory, len(texts[0]), asked))
