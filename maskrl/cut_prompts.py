"""Prompts that are longer than a network reads."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from maskrl.errors import quote


class CutPrompts:
    """Says that prompts are cut: once, of the first."""

    def __init__(self, reader: str, most: int) -> None:
        """Of a ``reader``, as users know it, that takes ``most`` tokens."""
        self._reader, self._most, self._said = reader, most, False

    def tell(self, cut: Sequence[str]) -> None:
        """Warn of texts that are cut, unless there are none or it has been said."""
        if not cut or self._said:
            return
        self._said = True
        warnings.warn(
            f"{self._reader} reads {self._most} tokens of a prompt; this one is longer and is cut, and others may be:"
            f" {quote(cut[0])}",
            stacklevel=5,
        )
