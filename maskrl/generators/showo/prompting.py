"""Show-o's universal prompting: the special tokens, the text prefix of a row, and who attends to whom.

A row is ``[PAD]* <|t2i|> bos text eos | <|soi|> image * N <|eoi|>``: the text part has a fixed length and is padded on
the left. Source: Xie et al. 2024 (arXiv 2408.12528), sections 3.1-3.2, and the published code's token order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SPECIAL_TOKENS = (
    "[PAD]",
    "<|soi|>",
    "<|eoi|>",
    "<|sov|>",
    "<|eov|>",
    "<|t2i|>",
    "<|mmu|>",
    "<|t2v|>",
    "<|v2v|>",
    "<|lvg|>",
)


class TextTokenizer(Protocol):
    """The part of a transformers tokenizer that prompting needs."""

    bos_token_id: int
    eos_token_id: int

    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]:
        """Text to ids."""


@dataclass(frozen=True)
class Vocabulary:
    """The shared vocabulary: ``text_size`` text ids, ten special tokens, ``num_codes`` codes, one mask."""

    text_size: int
    num_codes: int

    @property
    def code_offset(self) -> int:
        """Id of code 0."""
        return self.text_size + len(SPECIAL_TOKENS)

    @property
    def mask_id(self) -> int:
        """Id of the masked image token, the last of all."""
        return self.code_offset + self.num_codes

    @property
    def size(self) -> int:
        """Number of ids."""
        return self.mask_id + 1

    def special(self, token: str) -> int:
        """Id of a special token."""
        return self.text_size + SPECIAL_TOKENS.index(token)


@dataclass(frozen=True)
class UniversalPrompting:
    """Turns texts into prefixes of ``max_text_length`` + 1 ids."""

    tokenizer: TextTokenizer
    vocabulary: Vocabulary
    max_text_length: int

    def prefix(self, texts: Sequence[str]) -> Tensor:
        """Return Long [B, max_text_length + 1], left padded; text that does not fit is cut and still ends in eos."""
        return torch.tensor([self._row(text) for text in texts], dtype=torch.long)

    def is_cut(self, text: str) -> bool:
        """Say whether a text is too long to be read whole."""
        return len(self._ids(text)) > self.max_text_length + 1

    def _ids(self, text: str) -> list[int]:
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        bos = [] if ids[:1] == [self.tokenizer.bos_token_id] else [self.tokenizer.bos_token_id]
        return [self.vocabulary.special("<|t2i|>"), *bos, *ids, self.tokenizer.eos_token_id]

    def _row(self, text: str) -> list[int]:
        length, ids = self.max_text_length + 1, self._ids(text)
        if len(ids) > length:
            ids = [*ids[: length - 1], self.tokenizer.eos_token_id]
        return [self.vocabulary.special("[PAD]")] * (length - len(ids)) + ids


def omni_attention(prefix_is_text: Tensor, image_length: int, dtype: torch.dtype) -> Tensor:
    """Build the additive mask: text is causal, the image part sees all text and all of itself; nobody sees padding.

    Args:
        prefix_is_text: Bool [B, L], False at the padding.
        image_length: N + 2, with ``<|soi|>`` and ``<|eoi|>``.
        dtype: of the result.

    Returns:
        Float [B, 1, L + image_length, L + image_length]: 0 where attention is allowed, the smallest number elsewhere.
        Rows of padding attend to themselves and the padding before them, so that no row is empty.
    """
    batch, text_length = prefix_is_text.shape
    length = text_length + image_length
    visible = torch.cat([prefix_is_text, prefix_is_text.new_ones(batch, image_length)], dim=1)
    causal = torch.ones(length, length, dtype=torch.bool, device=visible.device).tril()
    is_image = torch.arange(length, device=visible.device) >= text_length
    same_kind = visible[:, :, None] == visible[:, None, :]
    allowed = same_kind & (causal | is_image[:, None])
    blocked = torch.finfo(dtype).min
    return torch.zeros(allowed.shape, dtype=dtype, device=visible.device).masked_fill(~allowed, blocked)[
        :, None
    ]
