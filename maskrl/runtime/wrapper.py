"""A generator around another one, for those that change one thing about it: precision, place, adapters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskrl.component import Component
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Prompt, StepIndex


class Wrapper(MaskedGenerator):
    """Does everything as the inner generator does."""

    def __init__(self, inner: MaskedGenerator) -> None:
        super().__init__(inner.config)
        self.precision = inner.precision
        self.inner, self.module, self.frozen, self.spec = inner, inner.module, inner.frozen, inner.spec

    def unwrapped(self) -> Component:
        """Return the inner generator."""
        return self.inner.unwrapped()

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """As the inner generator."""
        return self.inner.encode(prompts)

    def prefill(self, condition: Condition) -> Condition:
        """As the inner generator."""
        return self.inner.prefill(condition)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator."""
        return self.inner.logits(tokens, condition, step, guidance, positions)

    def blocks(self) -> Sequence[tuple[nn.Module, str]]:
        """As the inner generator."""
        return self.inner.blocks()

    def confidence(self, logits: Tensor, proposals: Tensor, step: StepIndex) -> Tensor:
        """As the inner generator."""
        return self.inner.confidence(logits, proposals, step)

    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """As the inner generator."""
        return self.inner.decode(tokens, condition)

    def save(self, folder: str) -> None:
        """As the inner generator."""
        self.inner.save(folder)
