"""What a CLIP text encoder says of texts, for generators that attend to its last layer but one.

Plugins may import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from maskrl.cut_prompts import CutPrompts
from maskrl.interfaces import Condition
from maskrl.types import Prompt


@dataclass(frozen=True)
class TextMemory(Condition):
    """What the text encoder says of U texts, the last of which is the null branch's.

    Attributes:
        memory: Float [U, P, D], its last layer but one, attended to.
        pooled: Float [U, D'], a vector for the whole text.
        rows: Long [B] in [0, U).
    """

    memory: Tensor
    pooled: Tensor
    rows: Tensor

    def select(self, rows: Tensor) -> TextMemory:
        """Long [K] -> a condition of K rows."""
        return replace(self, rows=self.rows[rows.to(self.rows.device)])

    def with_null(self) -> TextMemory:
        """Return a condition of 2 B rows: the B texts, then B times the null branch."""
        null = torch.full_like(self.rows, len(self.pooled) - 1)
        return replace(self, rows=torch.cat([self.rows, null]))

    @property
    def of_rows(self) -> tuple[Tensor, Tensor]:
        """Float [B, P, D] and [B, D']: memory and pooled vector of each row."""
        return self.memory[self.rows], self.pooled[self.rows]


class ClipReader:
    """Reads every text by itself, padded to the encoder's length: padding is attended to. Too long ones are cut."""

    def __init__(self, reader: str, tokenizer: Any, encoder: Any) -> None:
        """Of a ``reader``, as users know it: its CLIPTokenizer and its CLIPTextModelWithProjection."""
        self._tokenizer, self._encoder = tokenizer, encoder
        self._length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        self._cut = CutPrompts(reader, self._length)

    @torch.no_grad()
    def read(self, prompts: Sequence[Prompt], null: str, device: torch.device) -> TextMemory:
        """Read B prompts, and the text of the null branch."""
        texts = [*(prompt.text for prompt in prompts), null]
        self._cut.tell([text for text in texts if len(self._tokenizer(text).input_ids) > self._length])
        memory, pooled = zip(*map(self._read_one, texts), strict=True)
        rows = torch.arange(len(prompts), device=device)
        return TextMemory(torch.cat(memory).to(device), torch.cat(pooled).to(device), rows)

    def _read_one(self, text: str) -> tuple[Tensor, Tensor]:
        ids = self._tokenizer(
            text, padding="max_length", truncation=True, max_length=self._length, return_tensors="pt"
        ).input_ids
        read = self._encoder(ids.to(self._encoder.device), output_hidden_states=True)
        return read.hidden_states[-2], read.text_embeds
