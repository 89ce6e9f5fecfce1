"""bf16 where that is safe; weights, log-probabilities and their sums stay fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.runtime.wrapper import Wrapper
from maskrl.types import StepIndex


class Autocast(Wrapper):
    """A generator whose network computes in bf16; its weights stay as they are: fp32 where AdamW moves them."""

    def __init__(self, inner: MaskedGenerator) -> None:
        super().__init__(inner)
        self.precision = "bf16"

    def prefill(self, condition: Condition) -> Condition:
        """As the inner generator, in bf16."""
        with torch.autocast(self._device_type, dtype=torch.bfloat16):
            return self.inner.prefill(condition)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator, in bf16."""
        with torch.autocast(self._device_type, dtype=torch.bfloat16):
            return self.inner.logits(tokens, condition, step, guidance, positions)

    @property
    def _device_type(self) -> str:
        return next(self.module.parameters()).device.type
