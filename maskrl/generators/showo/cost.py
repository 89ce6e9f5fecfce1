"""What a Show-o costs: its own code, run on tensors without memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PhiConfig

from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.network import Memory, ShowoNetwork
from maskrl.generators.showo.prompting import Vocabulary
from maskrl.types import Cost, GeneratorSpec


def measure(
    spec: GeneratorSpec,
    phi: PhiConfig,
    vocabulary: Vocabulary,
    sizes: MagvitConfig,
    *,
    bf16: bool,
    checkpointing: bool,
    text_tokens: int,
) -> Cost:
    """Count parameters, FLOPs and what autograd keeps, of networks of these sizes."""
    assert spec.grid is not None
    with FakeTensorMode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        network, magvit = ShowoNetwork(phi, vocabulary), Magvit(sizes)
        if checkpointing:
            network.gradient_checkpointing_enable()
        text = torch.zeros(text_tokens, dtype=torch.long)
        codes = torch.zeros(1, sizes.bits, *spec.grid)
        one, two = (_kept(network, spec.num_tokens, text, images) for images in (1, 2))
        with torch.no_grad():
            memory = network.read([text], end=text_tokens)
            return Cost(
                spec=spec,
                parameters=_count(network),
                frozen_parameters=_count(magvit),
                adapter_sizes=_adapter_sizes(network, spec.lora_targets),
                prompt_flops=_flops(lambda: network.read([text], end=text_tokens)),
                image_flops=_flops(lambda: _look(network, spec.num_tokens, memory, images=1)),
                position_flops=2 * phi.hidden_size * spec.num_codes,
                decode_flops=_flops(lambda: magvit.decoder(codes)),
                decode_bytes=3
                * _largest(magvit.decoder, codes),  # a block's input, output and what is between
                pair_bytes=two - one,
                copy_bytes=2 * one - two,
            )


def _look(network: ShowoNetwork, num_tokens: int, memory: Memory, images: int) -> Tensor:
    ids = torch.zeros(images, num_tokens + 2, dtype=torch.long)
    return network.look(ids, [images], memory, start=memory.lengths[0])


def _flops(run: Callable[[], object]) -> float:
    """Count what a function multiplies and adds, attention by the plain matrix products that it stands for."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        run()
    return float(counted.get_total_flops())


def _largest(module: nn.Module, x: Tensor) -> int:
    """Return the bytes of the largest tensor that any part of a network puts out."""
    sizes = [0]

    def look(part: nn.Module, inputs: object, output: Tensor) -> None:
        sizes.append(output.numel() * output.element_size())

    hooks = [part.register_forward_hook(look) for part in module.modules()]
    module(x)
    for hook in hooks:
        hook.remove()
    return max(sizes)


def _kept(network: ShowoNetwork, num_tokens: int, text: Tensor, images: int) -> int:
    """Count the bytes that autograd keeps of some images of one text, parameters and the text aside."""
    with torch.no_grad():
        memory = network.read([text], end=len(text))
    own = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = _look(network, num_tokens, memory, images)
    assert result.requires_grad, "the network is there to be trained"
    return sum(kept.values())


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _adapter_sizes(network: nn.Module, targets: tuple[str, ...]) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in targets:
            sizes[name.rpartition(".")[2]] += layer.in_features + layer.out_features
    return dict(sizes)
