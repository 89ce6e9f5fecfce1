"""What a Show-o costs: its own code, run on tensors without memory."""

from __future__ import annotations

from contextlib import suppress
from functools import cache, partial

import torch
from torch import Tensor
from transformers import PhiConfig

from maskrl.counting import adapter_sizes, parameters_of
from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.footprint import Allocations
from maskrl.generators.showo.asked import asked_evenly
from maskrl.generators.showo.depth import by_depth
from maskrl.generators.showo.footprint import footprint
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.network import KVCache, ShowoNetwork
from maskrl.generators.showo.prompting import Vocabulary
from maskrl.types import Cost, Footprint, GeneratorSpec, Pass


def measure(
    spec: GeneratorSpec, phi: PhiConfig, vocabulary: Vocabulary, sizes: MagvitConfig, text_tokens: int
) -> Cost:
    """Count parameters and FLOPs of networks of these sizes."""
    assert spec.grid is not None
    with torch.device("meta"), torch.no_grad():
        network, magvit = ShowoNetwork(phi, vocabulary), Magvit(sizes)
        codes = torch.zeros(1, sizes.bits, *spec.grid)
        prompt, nowhere, one = by_depth(partial(_flops, spec.num_tokens, vocabulary, text_tokens), phi)
        last_product = 2 * phi.intermediate_size * phi.hidden_size  # of a layer, at one position
        return Cost(
            spec=spec,
            parameters=parameters_of(network),
            frozen_parameters=parameters_of(magvit),
            adapter_sizes=adapter_sizes(network, spec.lora_targets),
            prompt_flops=prompt,
            image_flops=nowhere,
            position_flops=one - nowhere + 2 * phi.hidden_size * spec.num_codes,
            # a layer's last product is not needed again
            again_flops=nowhere - (phi.num_hidden_layers - 1) * (spec.num_tokens + 2) * last_product,
            decode_flops=count_flops(lambda: magvit.decoder(codes)),
            decode_bytes=_decoding(magvit, codes),
            # kept: a saving of memory changes one pass and leaves the others
            footprint=cache(partial(_footprint, spec.num_tokens, phi, vocabulary, text_tokens)),
            joins_blank=True,
        )


def _flops(num_tokens: int, vocabulary: Vocabulary, text_tokens: int, phi: PhiConfig) -> list[float]:
    """Count reading a text, and an image of it, with no position and with one that is asked for."""
    network, text = ShowoNetwork(phi, vocabulary), torch.zeros(text_tokens, dtype=torch.long)
    memory = network.read([text], end=text_tokens)
    return [
        count_flops(lambda: network.read([text], end=text_tokens)),
        *(count_flops(partial(_forward_image, network, num_tokens, memory, places)) for places in (0, 1)),
    ]


def _forward_image(network: ShowoNetwork, num_tokens: int, memory: KVCache, places: int) -> Tensor:
    ids = torch.zeros(1, num_tokens + 2, dtype=torch.long)
    asked = asked_evenly(1, num_tokens, places)
    return network.forward_image(ids, [1], memory, memory.lengths[0], asked)


def _footprint(
    num_tokens: int, phi: PhiConfig, vocabulary: Vocabulary, text_tokens: int, run: Pass
) -> Footprint:
    """Follow a pass, which is fullest when its backward pass begins, if the texts are short beside the images.

    The gradients of the texts' keys and values wait for each other: where they may come to more than the activations
    that go meanwhile, every layer is run.
    """

    def follow(phi: PhiConfig) -> tuple[float, float]:
        found = footprint(ShowoNetwork.unfilled(phi, vocabulary), num_tokens, text_tokens, run)
        return found.kept, found.peak

    texts_are_short = 4 * run.texts * text_tokens <= run.rows * num_tokens
    if texts_are_short:
        with suppress(RecipeError):  # adapters beside a layer that a shallow network lacks
            return Footprint(*by_depth(follow, phi))
    return Footprint(*follow(phi))


def _decoding(magvit: Magvit, codes: Tensor) -> float:
    """Follow what painting one image allocates."""
    with Allocations([*magvit.parameters(), *magvit.buffers(), codes]) as allocations:
        magvit.decoder(codes)
    return float(allocations.peak)
