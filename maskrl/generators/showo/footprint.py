"""How much memory a pass of Show-o takes: the pass itself, forward and backward, on tensors without memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrl.generators.showo.network import KVCache, ShowoNetwork
from maskrl.types import Footprint, Pass


def footprint(network: ShowoNetwork, num_tokens: int, text_tokens: int, run: Pass) -> Footprint:
    """Run a pass of a network of the meta device, and follow what is allocated; gradients are there already."""
    run.prepare(network)
    if run.checkpointing:
        network.gradient_checkpointing_enable()
    with FakeTensorMode():
        present = _on_the_cpu(network)
        texts = [torch.zeros(text_tokens, dtype=torch.long)] * max(run.texts, 1)
        with torch.no_grad(), _precision(run):
            read = None if run.texts else network.read(texts, end=text_tokens)
        with Allocations(present) as allocations, torch.set_grad_enabled(run.gradient):
            logits = _forward(network, num_tokens, texts, read, run)
            score = _Scored.apply(logits)  # type: ignore[no-untyped-call]
            del logits
            kept = allocations.now
            if run.gradient:
                score.backward()
        return Footprint(kept=float(kept), peak=float(allocations.peak))


def _on_the_cpu(network: nn.Module) -> list[Tensor]:
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


def _forward(
    network: ShowoNetwork, num_tokens: int, texts: list[Tensor], memory: KVCache | None, run: Pass
) -> Tensor:
    """Predict codes as the generator does: rows of a text side by side, as many masked positions as are wanted."""
    rows = [run.rows // len(texts) + (i < run.rows % len(texts)) for i in range(len(texts))]
    with _precision(run):
        memory = memory or network.read(texts, end=len(texts[0]))
        ids = torch.zeros(run.rows, num_tokens + 2, dtype=torch.long)
        places = torch.arange(run.masked)
        return network.code_logits(network.forward_image(ids, rows, memory, len(texts[0]), places))


def _precision(run: Pass) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=run.bf16)


class _Scored(torch.autograd.Function):
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
