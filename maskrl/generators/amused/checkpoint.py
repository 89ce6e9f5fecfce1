"""Read aMUSEd's published layout, which is diffusers'; its transformer is diffusers' UVit2DModel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from maskrl.component import open_path
from maskrl.diffusers_folder import find_folder, read_network, read_text_encoder, read_tokenizer
from maskrl.errors import RecipeError


@dataclass(frozen=True)
class Parts:
    """A checkpoint in memory, in ``eval()`` mode; all but the transformer frozen. It is None where not read."""

    transformer: Any
    vqvae: Any
    text_encoder: Any
    tokenizer: Any


def load(checkpoint: str, with_transformer: bool) -> Parts:
    """Read a folder, or a hub id, which is fetched once.

    Raises:
        RecipeError: diffusers is not installed, or the checkpoint is not there, or not whole.
    """
    folder = find_folder(checkpoint)
    models = diffusers_classes()
    return Parts(
        text_encoder=read_text_encoder(folder / "text_encoder"),
        vqvae=read_network(folder / "vqvae", models["VQModel"]).requires_grad_(False),
        transformer=load_transformer(str(folder / "transformer")) if with_transformer else None,
        tokenizer=read_tokenizer(folder / "tokenizer"),
    )


def load_transformer(folder: str) -> Any:
    """Read a transformer.

    Raises:
        RecipeError: diffusers is not installed, or it is not there, or not whole.
    """
    return read_network(Path(open_path(folder)), diffusers_classes()["UVit2DModel"])


def save_transformer(module: nn.Module, folder: str) -> None:
    """Write a transformer as ``load_transformer`` reads it."""
    saving: Any = module
    saving.save_pretrained(folder)


def diffusers_classes() -> Mapping[str, Any]:
    """Return diffusers' classes by name.

    Raises:
        RecipeError: diffusers is not installed.
    """
    try:
        from diffusers import UVit2DModel, VQModel
    except ImportError as error:
        raise RecipeError(
            "the generator 'amused' needs the package 'diffusers': pip install 'maskrl[amused]'"
        ) from error
    return {"UVit2DModel": UVit2DModel, "VQModel": VQModel}
