"""Read aMUSEd's published layout, which is diffusers': a folder for each network, and the tokenizer.

::

    transformer/   UVit2DModel: what is trained
    vqvae/         VQModel: codes to pixels
    text_encoder/  CLIPTextModelWithProjection
    tokenizer/     CLIPTokenizer
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from torch import nn
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.weights import first_line, is_hub_id, unreachable

_NETWORK = ("config.json", "diffusion_pytorch_model.safetensors")
_NEEDED = (
    *(f"{part}/{name}" for part in ("transformer", "vqvae") for name in _NETWORK),
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*",
)


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
    folder = _folder(checkpoint)
    models = _diffusers()
    text_encoder = _read(folder / "text_encoder", CLIPTextModelWithProjection)
    vqvae = _read(folder / "vqvae", models["VQModel"])
    return Parts(
        transformer=load_transformer(str(folder / "transformer")) if with_transformer else None,
        vqvae=vqvae.requires_grad_(False),
        text_encoder=text_encoder.requires_grad_(False),
        tokenizer=_tokenizer(folder / "tokenizer"),
    )


def load_transformer(folder: str) -> Any:
    """Read a transformer.

    Raises:
        RecipeError: diffusers is not installed, or it is not there, or not whole.
    """
    return _read(Path(open_path(folder)), _diffusers()["UVit2DModel"])


def save_transformer(module: nn.Module, folder: str) -> None:
    """Write a transformer as ``load_transformer`` reads it."""
    saving: Any = module
    saving.save_pretrained(folder)


def _diffusers() -> Mapping[str, Any]:
    try:
        from diffusers import UVit2DModel, VQModel
    except ImportError as error:
        raise RecipeError(
            "the generator 'amused' needs the package 'diffusers': pip install 'maskrl[amused]'"
        ) from error
    return {"UVit2DModel": UVit2DModel, "VQModel": VQModel}


def _folder(checkpoint: str) -> Path:
    local = Path(open_path(checkpoint))
    if local.is_dir():
        return local
    if not is_hub_id(checkpoint):
        raise RecipeError(
            f"checkpoint {checkpoint!r} is no folder and no hub id; give a folder in diffusers' layout"
        )
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(_NEEDED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(unreachable(f"checkpoint {checkpoint!r}", error)) from error


def _read(folder: Path, kind: Any) -> Any:
    """Read a network; weights that are missing would be random numbers, and are refused."""
    try:
        network, told = kind.from_pretrained(folder, output_loading_info=True)
    except Exception as error:  # of diffusers, transformers and safetensors, which have errors of many kinds
        raise RecipeError(f"{str(folder)!r} holds no {kind.__name__}: {first_line(error)}") from error
    lacking = sorted(told["missing_keys"]) + sorted(map(str, told["mismatched_keys"]))
    if lacking:
        raise RecipeError(
            f"{str(folder)!r} lacks weights, or has them in other sizes: {lacking[0]} and {len(lacking) - 1} more"
        )
    return network.eval()


def _tokenizer(folder: Path) -> Any:
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # of transformers and tokenizers
        raise RecipeError(f"{str(folder)!r} holds no CLIP tokenizer: {first_line(error)}") from error
