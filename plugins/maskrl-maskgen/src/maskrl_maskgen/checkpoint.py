"""Read and write the published layout: a folder or hub id with ``config.json`` and ``model.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from maskrl.errors import RecipeError
from maskrl.weights import as_state_dict, built_from, fill, find_file, read_file, read_json
from maskrl_maskgen.network import MaskGenNetwork
from maskrl_maskgen.sizes import GeneratorFile, GeneratorModel, TokenizerFile
from maskrl_maskgen.tatitok import TaTiTok

CONFIG, WEIGHTS = "config.json", ("model.safetensors", "pytorch_model.bin")
HEAD, TABLE = "lm_head.weight", "embeddings.weight"  # one tensor by two names


def load_generator(source: str) -> tuple[MaskGenNetwork, GeneratorModel, Mapping[str, Any]]:
    """Read a generator: the network in ``eval()`` mode, its sizes, and its ``config.json``.

    Raises:
        RecipeError: it is not there, is damaged, or is no MaskGen-VQ.
    """
    path = find_file(source, CONFIG)
    settings = read_json(path)
    with built_from(path):
        sizes = GeneratorFile.model_validate(settings).model
        network = MaskGenNetwork.unfilled(sizes.vq_model, sizes.maskgen)
    weights = find_file(source, *WEIGHTS)
    fill(network, _untied(as_state_dict(read_file(weights), weights), weights), weights)
    return network.eval(), sizes, settings


def load_tokenizer(source: str) -> tuple[TaTiTok, TokenizerFile]:
    """Read a tokenizer's codebook and decoder, frozen, and its sizes.

    Raises:
        RecipeError: it is not there, is damaged, or is no TA-TiTok of codes.
    """
    path = find_file(source, CONFIG)
    with built_from(path):
        sizes = TokenizerFile.model_validate(read_json(path))
        network = TaTiTok.unfilled(sizes.model.vq_model, sizes.dataset.preprocessing.crop_size)
    weights = find_file(source, *WEIGHTS)
    tensors = as_state_dict(read_file(weights), weights)
    fill(network, {key: tensor for key, tensor in tensors.items() if not _of_encoder(key)}, weights)
    return network.eval().requires_grad_(False), sizes


def save_generator(network: nn.Module, settings: Mapping[str, Any], folder: str) -> None:
    """Write a generator as :func:`load_generator` and the public code read it."""
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    (where / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, where / WEIGHTS[0])


def _untied(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Keep one of the two names of the table of codes, whichever a file has.

    Raises:
        RecipeError: it has both, and they differ.
    """
    kept = dict(tensors)
    head = kept.pop(HEAD, None)
    if head is not None and not torch.equal(kept.setdefault(TABLE, head), head):
        raise RecipeError(f"{str(path)!r}: {HEAD} and {TABLE} differ; in MaskGen-VQ they are one tensor")
    return kept


def _of_encoder(key: str) -> bool:
    """Tell whether a tensor is used in encoding images or in training the codebook alone."""
    return key.startswith("encoder.") or key in ("latent_tokens", "quantize.embed_prob")
