"""The average of the trained weights over the updates: an exponential moving average, in which noise cancels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from maskrl.interfaces import MaskedGenerator
from maskrl.runtime.wrapper import Wrapper
from maskrl.sections import EmaConfig
from maskrl.shards import whole
from maskrl.training.state import copy_into, trained_parameters

UPDATES = "updates"


class Average:
    """An average of what is trained: of the weights, or of the adapters.

    Training goes on from the weights themselves. Within :meth:`shown` the average stands in their place, if the recipe
    wants it evaluated.
    """

    def __init__(self, generator: MaskedGenerator, config: EmaConfig) -> None:
        self._config, self._parameters = config, trained_parameters(generator)
        self._means = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._updates, self._is_shown = 0, False

    @property
    def decay(self) -> float:
        """How much of the average stays in the next update."""
        seen = self._updates
        return (
            min(self._config.decay, (1 + seen) / (10 + seen)) if self._config.warmup else self._config.decay
        )

    @torch.no_grad()
    def update(self) -> dict[str, float]:
        """Take in the weights as an update has left them; return metrics.

        ``ema_distance`` is the norm of average - weights, over the weights' own.
        """
        decay, pairs = self.decay, [(self._means[name], p) for name, p in self._parameters.items()]
        for mean, parameter in pairs:
            mean.lerp_(parameter, 1 - decay)
        self._updates += 1
        distance = _norm([mean - parameter for mean, parameter in pairs])
        size = _norm([parameter for _, parameter in pairs])
        return {"ema_decay": decay, "ema_distance": distance / size if size else 0.0}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Put the average in the weights' place, if it is to be evaluated; at the end they are back, to the bit."""
        with self._in_place(self._config.evaluate):
            yield

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Put the weights in their place, also within :meth:`shown`: what is saved to go on from."""
        with self._in_place(False):
            yield

    @contextmanager
    def _in_place(self, is_shown: bool) -> Iterator[None]:
        before = self._is_shown
        self._show(is_shown)
        try:
            yield
        finally:
            self._show(before)

    @torch.no_grad()
    def _show(self, is_shown: bool) -> None:
        if is_shown == self._is_shown:
            return
        for name, parameter in self._parameters.items():
            weights = parameter.clone()
            parameter.copy_(self._means[name])
            self._means[name].copy_(weights)
        self._is_shown = is_shown

    def state_dict(self) -> dict[str, Any]:
        """Return the average by the names of the parameters, and how many updates it has seen."""
        return {**self._means, UPDATES: self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it.

        Raises:
            TrainingError: it is that of another network.
        """
        copy_into(self._means, {name: value for name, value in state.items() if name != UPDATES})
        self._updates = state[UPDATES]


def _norm(tensors: list[Tensor]) -> float:
    return float(whole(torch.stack([torch.linalg.vector_norm(tensor) for tensor in tensors]).norm()))


class Averaged(Wrapper):
    """A generator that saves the average of its weights, where it is what counts."""

    def __init__(self, inner: MaskedGenerator, average: Average) -> None:
        super().__init__(inner)
        self._average = average

    def save(self, folder: str) -> None:
        """As the inner generator, with the average in the weights' place."""
        with self._average.shown():
            self.inner.save(folder)
