"""What is needed only now and then (decoder, reward) waits in main memory and visits the device when it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from maskrl.component import Component
from maskrl.interfaces import Condition, MaskedGenerator, RewardModel
from maskrl.runtime.wrapper import Wrapper
from maskrl.types import Prompt


@contextmanager
def visiting(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Move networks to the device, and back to main memory at the end."""
    try:
        for module in modules:
            module.to(device)
        yield
    finally:
        for module in modules:
            module.to("cpu")


class OffloadedDecoder(Wrapper):
    """A generator whose frozen networks are on the device only while images are painted."""

    def __init__(self, inner: MaskedGenerator, device: torch.device) -> None:
        super().__init__(inner)
        self._device = device

    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """As the inner generator."""
        with visiting(self.frozen, self._device):
            return self.inner.decode(tokens, condition)


class OffloadedReward(RewardModel):
    """A reward whose networks are on the device only while images are judged."""

    def __init__(self, inner: RewardModel, device: torch.device) -> None:
        super().__init__(inner.config)
        self.inner, self.modules, self._device = inner, inner.modules, device

    def check(self, prompts: Sequence[Prompt]) -> None:
        """As the inner reward."""
        with visiting(self.modules, self._device):
            self.inner.check(prompts)

    def unwrapped(self) -> Component:
        """Return the inner reward."""
        return self.inner.unwrapped()

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As the inner reward."""
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
        """As the inner reward."""
        with visiting(self.modules, self._device):
            return self.inner.score_terms(images, prompts)

    def term_weights(self) -> Mapping[str, float] | None:
        """As the inner reward."""
        return self.inner.term_weights()
