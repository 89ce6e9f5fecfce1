"""A network of which every process holds a part, through FSDP2: gathered block by block while it runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from maskrl.errors import RecipeError
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.runtime.placement import Placement
from maskrl.runtime.wrapper import Wrapper
from maskrl.shards import whole
from maskrl.types import StepIndex

T = TypeVar("T")


class _Root(nn.Module):
    """Stands around a network, so that whatever a generator does with it happens within a forward pass of this."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, call: Callable[[], T]) -> T:
        return call()


class Sharded(Wrapper):
    """A generator whose network lies divided among the processes; all of them ask it as often, at the same time.

    What belongs to no block is gathered for the length of a call, a block only while it runs. Gradients are added up,
    not averaged; what a process has not used counts as 0.
    """

    def __init__(self, inner: MaskedGenerator, placement: Placement) -> None:
        """Divide the network.

        Raises:
            RecipeError: it cannot be divided, or this PyTorch cannot.
        """
        super().__init__(inner)
        self._placement, self._root = placement, _Root(inner.module)
        try:
            _divide(self._root, inner, placement)
        except (ValueError, NotImplementedError) as error:  # FSDP2's, of parameters that it cannot divide
            raise RecipeError(
                f"parallel.strategy = 'shard': the network of {type(inner.unwrapped()).__name__} cannot be divided"
                f" ({str(error).partition(chr(10))[0]}); choose 'replicate'"
            ) from error

    def prefill(self, condition: Condition) -> Condition:
        """As the inner generator."""
        return self._run(partial(self.inner.prefill, condition))

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator."""
        return self._run(partial(self.inner.logits, tokens, condition, step, guidance, positions))

    def save(self, folder: str) -> None:
        """As the inner generator, on the main process; the others, which must call it too, help to gather."""
        with self._placement.meeting(), _gathered(self.module, self._placement):
            if self._placement.is_main:
                self.inner.save(folder)

    def _run(self, call: Callable[[], T]) -> T:
        with _casting_anew(), self._placement.meeting():
            found: T = self._root(call)
            return found


def _divide(root: nn.Module, generator: MaskedGenerator, placement: Placement) -> None:
    from torch.distributed.device_mesh import init_device_mesh  # slow to import
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
        raise RecipeError(
            f"parallel.strategy = 'shard' needs PyTorch 2.13 or newer; here is {torch.__version__}"
        )
    # it warns of an operation in place, which nothing that we do with the results of a block is
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(placement.device.type, (placement.world_size,))
    for network, method in (*generator.blocks(), (root, "forward")):
        if not isinstance(network, FSDPModule):
            fully_shard(network, mesh=mesh, reshard_after_forward=True)
            divided = cast(FSDPModule, network)
            divided.set_gradient_divide_factor(1.0)
            divided.set_force_sum_reduction_for_comms(True)
            divided.set_reduce_scatter_unused_params(True)
        if method != "forward":
            register_fsdp_forward_method(network, method)


@contextmanager
def _casting_anew() -> Iterator[None]:
    """Let autocast keep no copy of weights: together they would be the whole network."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def _gathered(module: nn.Module, placement: Placement) -> Iterator[None]:
    """Put whole parameters in their places, in main memory, on the main process; all enter it together."""
    places = [
        (network._parameters, name, parameter)
        for network in module.modules()
        for name, parameter in network._parameters.items()
        if parameter is not None
    ]
    named = dict(module.named_parameters())  # tied ones once
    full = gathered({name: parameter.detach() for name, parameter in named.items()}, placement)
    new = {
        id(named[name]): nn.Parameter(tensor, requires_grad=named[name].requires_grad)
        for name, tensor in full.items()
    }
    try:
        for slots, name, parameter in places:
            slots[name] = new.get(id(parameter), parameter)
        yield
    finally:
        for slots, name, parameter in places:
            slots[name] = parameter


def gathered(tensors: Mapping[str, Tensor], placement: Placement) -> dict[str, Tensor]:
    """Return whole tensors, in main memory, on the main process, and none on the others; all ask for it together."""
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if placement.is_main:
            found[name] = full.cpu()
    return found
