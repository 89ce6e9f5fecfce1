"""How much memory a pass of a network takes: the pass itself, forward and backward, on tensors without memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrl.types import Footprint, Pass

Before = TypeVar("Before")


def follow(
    network: nn.Module, run: Pass, before: Callable[[], Before], forward: Callable[[Before], Tensor]
) -> Footprint:
    """Run a pass of a network of the meta device, and follow what is allocated; gradients are there already.

    Args:
        network: as the pass will have it: with its adapters, and set to compute activations again if it does.
        run: what pass.
        before: is called first, without gradient; what it allocates is not counted.
        forward: makes the logits, from what ``before`` has returned.
    """
    with FakeTensorMode():
        present = on_the_cpu(network)
        with torch.no_grad(), _precision(run):
            known = before()
        with Allocations(present) as allocations, torch.set_grad_enabled(run.gradient):
            with _precision(run):
                logits = forward(known)
            score = Scored.apply(logits)  # type: ignore[no-untyped-call]
            del logits
            kept = allocations.now
            if run.gradient:
                score.backward()
        return Footprint(kept=float(kept), peak=float(allocations.peak))


def on_the_cpu(network: nn.Module) -> list[Tensor]:
    """Give a network fake tensors that say they are on the CPU, as autocast needs, and gradients; return them all."""
    present: list[Tensor] = []
    for part in network.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        for name, old in part.named_parameters(recurse=False):
            new = nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
            new.grad = torch.empty_like(new) if new.requires_grad else None
            part._parameters[name] = new
            present += [new] if new.grad is None else [new, new.grad]
    return [*present, *network.buffers()]


def _precision(run: Pass) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.bf16)


class Scored(torch.autograd.Function):
    """Stands for whatever scores logits: it keeps none of them, and sends a gradient back."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        """Forget the logits but for their size."""
        ctx.like = {"size": logits.shape, "dtype": logits.dtype}
        return torch.empty((), dtype=logits.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Make a gradient that nobody holds."""
        return torch.empty(**ctx.like)


class Allocations(TorchDispatchMode):
    """Follows the bytes of all tensors that are made while it is entered: ``now``, and the ``peak`` of them."""

    def __init__(self, present: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in present}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size
