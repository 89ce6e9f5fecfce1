"""Read and write Meissonic's transformer as it is published: ``config.json`` and one file of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import VQModel
from safetensors.torch import save_file

from maskrl.component import open_path
from maskrl.diffusers_folder import (
    NETWORK,
    TEXT,
    find_folder,
    read_network,
    read_text_encoder,
    read_tokenizer,
)
from maskrl.weights import as_state_dict, built_from, fill, read_file, read_json
from maskrl_meissonic.network import Sizes, Transformer

SETTINGS, WEIGHTS = NETWORK


@dataclass(frozen=True)
class Parts:
    """A checkpoint in memory, in ``eval()`` mode; all but the transformer frozen.

    ``settings`` are those of the transformer's ``config.json``, whatever else they say.
    """

    transformer: Transformer
    settings: dict[str, Any]
    vqvae: Any
    text_encoder: Any
    tokenizer: Any


def load(checkpoint: str, transformer: str | None, text_encoder: str | None) -> Parts:
    """Read a folder in diffusers' layout, or a hub id, which is fetched once; with other parts than its own.

    Raises:
        RecipeError: it is not there, or not whole.
    """
    folder = find_folder(checkpoint)
    network, settings = load_transformer(
        Path(open_path(transformer)) if transformer else folder / "transformer"
    )
    texts = find_folder(text_encoder, TEXT) if text_encoder else folder / "text_encoder"
    return Parts(
        transformer=network,
        settings=settings,
        vqvae=read_network(folder / "vqvae", VQModel).requires_grad_(False),
        text_encoder=read_text_encoder(texts),
        tokenizer=read_tokenizer(folder / "tokenizer"),
    )


def load_transformer(folder: Path) -> tuple[Transformer, dict[str, Any]]:
    """Read a transformer in fp32, and its settings.

    Raises:
        RecipeError: it is not there, or not whole.
    """
    settings = read_json(folder / SETTINGS)
    with built_from(folder / SETTINGS), init_empty_weights():
        network = Transformer(Sizes.model_validate(settings))
    fill(network, as_state_dict(read_file(folder / WEIGHTS), folder / WEIGHTS), folder / WEIGHTS)
    return network.eval(), settings


def save_transformer(network: Transformer, settings: dict[str, Any], folder: Path) -> None:
    """Write a transformer as it is published."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
