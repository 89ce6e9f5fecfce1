"""What a generator costs whose network is run like any module: counted on tensors without memory.

A text is read once, by an encoder that is never trained: next to the steps of its images that is nothing, and is not
counted. Plugins may import this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from maskrl.flops import count_flops
from maskrl.footprint import Allocations, follow, on_the_cpu
from maskrl.types import Cost, Footprint, GeneratorSpec, Pass

Network = TypeVar("Network", bound=nn.Module)
Places = tuple[Tensor, Tensor]  # of positions: Long [M] rows, Long [M] in [0, N)


@dataclass(frozen=True)
class Counted(Generic[Network]):
    """What must be known of a generator to count what it costs.

    Attributes:
        spec: its sizes.
        build: makes the network that is trained, on the meta device.
        predict: runs it: network, rows B, and the M places at which codes are wanted -> Float [M, V].
        recompute: makes it compute its activations again in the backward pass.
        decoder: what paints, on the meta device.
        paint: runs it for one image.
        readers: the other networks that are never trained, on the meta device.
    """

    spec: GeneratorSpec
    build: Callable[[], Network]
    predict: Callable[[Network, int, Places], Tensor]
    recompute: Callable[[Network], object]
    decoder: nn.Module
    paint: Callable[[], Tensor]
    readers: Sequence[nn.Module]


def measure(counted: Counted[Network]) -> Cost:
    """Count parameters, FLOPs and bytes."""
    network = counted.build()
    parameters, adapters = parameters_of(network), adapter_sizes(network, counted.spec.lora_targets)
    with torch.device("meta"), torch.no_grad():
        nowhere, one = (
            count_flops(partial(counted.predict, network, 1, _places(number, counted.spec.num_tokens)))
            for number in (0, 1)
        )
    with FakeTensorMode(), torch.no_grad():
        present = on_the_cpu(counted.decoder)
        decode_flops = count_flops(counted.paint)
        with Allocations(present) as allocations:
            counted.paint()
    return Cost(
        spec=counted.spec,
        parameters=parameters,
        frozen_parameters=sum(map(parameters_of, (*counted.readers, counted.decoder))),
        adapter_sizes=adapters,
        prompt_flops=0.0,
        image_flops=nowhere,
        again_flops=_again_flops(counted, network),
        position_flops=one - nowhere,
        decode_flops=decode_flops,
        decode_bytes=float(allocations.peak),
        # kept: a saving of memory changes one pass and leaves the others
        footprint=cache(partial(_footprint, counted)),
    )


def _again_flops(counted: Counted[Network], network: Network) -> float:
    """Count what activations that are computed again add to a forward and a backward pass of one image at one step."""

    def train() -> None:
        nowhere = _places(0, counted.spec.num_tokens)
        counted.predict(network, 1, nowhere).sum().backward()

    with torch.device("meta"):
        plain = count_flops(train)
        counted.recompute(network)
        return count_flops(train) - plain


def _footprint(counted: Counted[Network], run: Pass) -> Footprint:
    network = counted.build()
    run.prepare(network)
    if run.checkpointing:
        counted.recompute(network)
    return follow(
        network,
        run,
        lambda: None,
        lambda _: counted.predict(network, run.rows, _places(run.masked, counted.spec.num_tokens)),
    )


def _places(number: int, num_tokens: int) -> Places:
    places = torch.arange(number)
    return places // num_tokens, places % num_tokens


def parameters_of(module: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(parameter.numel() for parameter in module.parameters())


def adapter_sizes(network: nn.Module, targets: Sequence[str]) -> dict[str, int]:
    """Return, by the last part of a layer's name, what a rank of adapters adds to all layers of that name."""
    sizes: Counter[str] = Counter()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in targets:
            sizes[name.rpartition(".")[2]] += layer.in_features + layer.out_features
    return dict(sizes)
