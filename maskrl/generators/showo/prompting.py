"""Show-o's universal prompting: the special tokens, and the text prefix of a row.

A row is ``[PAD]* <|t2i|> bos text eos | <|soi|> image * N <|eoi|>``.

Source: Xie et al. 2024 (arXiv 2408.12528), sections 3.1-3.2, and the published code's token order.
"""

from __future__ import annotations

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

    @property
    def not_text(self) -> range:
        """The ids that are not the language model's: special tokens, codes and mask."""
        return range(self.text_size, self.size)

    def special(self, token: str) -> int:
        """Id of a special token."""
        return self.text_size + SPECIAL_TOKENS.index(token)


@dataclass(frozen=True)
class UniversalPrompting:
    """Turns texts into prefixes.

    The published code pads every prefix on the left to ``length`` ids, which nobody attends to; here they are left out
    and the text keeps its positions: it ends at ``length``.
    """

    tokenizer: TextTokenizer
    vocabulary: Vocabulary
    max_text_length: int

    @property
    def length(self) -> int:
        """Number of ids before the image, padding included."""
        return self.max_text_length + 1

    def ids(self, text: str) -> tuple[Tensor, bool]:
        """Return Long [P], P <= ``length``, and whether the text did not fit: it is cut then, and still ends in eos."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        bos = [] if ids[:1] == [self.tokenizer.bos_token_id] else [self.tokenizer.bos_token_id]
        row = [self.vocabulary.special("<|t2i|>"), *bos, *ids, self.tokenizer.eos_token_id]
        is_cut = len(row) > self.length
        if is_cut:
            row = [*row[: self.length - 1], self.tokenizer.eos_token_id]
        return torch.tensor(row, dtype=torch.long), is_cut
