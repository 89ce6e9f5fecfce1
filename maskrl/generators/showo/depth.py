"""Counting a deep network by two shallow ones: its layers are alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from transformers import PhiConfig

SHALLOW = 3  # layers: a first, one between, a last


def by_depth(count: Callable[[PhiConfig], Sequence[float]], phi: PhiConfig) -> Sequence[float]:
    """Say what ``count`` would say of a network: exact for what grows by as much with every further layer."""
    further = phi.num_hidden_layers - SHALLOW
    if further < 2:
        return count(phi)
    shallow, deeper = (count(_of_depth(phi, SHALLOW + more)) for more in (0, 1))
    return [a + further * (b - a) for a, b in zip(shallow, deeper, strict=True)]


def _of_depth(phi: PhiConfig, layers: int) -> PhiConfig:
    return PhiConfig(**{**phi.to_dict(), "num_hidden_layers": layers})
