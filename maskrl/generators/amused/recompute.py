"""Activations of diffusers' layers, computed again in the backward pass.

diffusers' own switch calls a layer of this network with arguments that its wrapper does not take.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_all(network: Any) -> None:
    """Keep of every layer of a UVit2DModel's transformer, and of both blocks of convolutions, its input only."""
    for layer in (*network.transformer_layers, network.down_block, network.up_block):
        recompute(layer)


def recompute(layer: nn.Module) -> None:
    """Keep of a layer its input only, from now on; names and weights stay as they are."""
    layer.__class__ = _recomputed(type(layer))


def _recomputed(kind: type[nn.Module]) -> type[nn.Module]:
    class Recomputed(kind):  # type: ignore[misc, valid-type]
        """The same layer; nothing is drawn in it, so no state of a random number generator is kept."""

        def forward(self, *given: Any, **named: Any) -> Any:
            """Run it."""
            run = super().forward
            if not torch.is_grad_enabled():
                return run(*given, **named)
            return checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False, **named)

    return Recomputed
