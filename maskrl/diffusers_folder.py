"""Read what is published in diffusers' layout: a folder for each network of a pipeline, and one for the tokenizer.

::

    transformer/   what is trained
    vqvae/         VQModel: codes to pixels
    text_encoder/  CLIPTextModelWithProjection
    tokenizer/     CLIPTokenizer

Plugins may import this module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.weights import first_line, is_hub_id, unreachable

NETWORK = ("config.json", "diffusion_pytorch_model.safetensors")
TEXT = ("config.json", "model.safetensors")
NEEDED = (
    *(f"{part}/{name}" for part in ("transformer", "vqvae") for name in NETWORK),
    *(f"text_encoder/{name}" for name in TEXT),
    "tokenizer/*",
)

# Source: ``vqvae/config.json`` of the published aMUSEd, and of Meissonic, which has the same; the rest is by default.
VQVAE: Mapping[str, Any] = {
    "block_out_channels": [128, 256, 256, 512, 768],
    "down_block_types": ["DownEncoderBlock2D"] * 5,
    "up_block_types": ["UpDecoderBlock2D"] * 5,
    "latent_channels": 64,
    "layers_per_block": 2,
    "num_vq_embeddings": 8192,
    "vq_embed_dim": 64,
    "mid_block_add_attention": False,
    "lookup_from_codebook": True,
}


def find_folder(checkpoint: str, needed: Sequence[str] = NEEDED) -> Path:
    """Return a folder, or what is ``needed`` of a hub id, which is fetched once.

    Raises:
        RecipeError: it is neither, or the hub cannot be reached.
    """
    local = Path(open_path(checkpoint))
    if local.is_dir():
        return local
    if not is_hub_id(checkpoint):
        raise RecipeError(
            f"checkpoint {checkpoint!r} is no folder and no hub id; give a folder in diffusers' layout"
        )
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=list(needed)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(unreachable(f"checkpoint {checkpoint!r}", error)) from error


def read_network(folder: Path, kind: Any) -> Any:
    """Read a network of a class of diffusers' or transformers', in ``eval()`` mode.

    Raises:
        RecipeError: it is not there, or lacks weights, which would be random numbers.
    """
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


def read_text_encoder(folder: Path) -> Any:
    """Read a CLIP text encoder, frozen.

    Raises:
        RecipeError: it is not there, or not whole.
    """
    return read_network(folder, CLIPTextModelWithProjection).requires_grad_(False)


def read_tokenizer(folder: Path) -> Any:
    """Read a CLIP tokenizer.

    Raises:
        RecipeError: it is not there.
    """
    try:
        return CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # of transformers and tokenizers
        raise RecipeError(f"{str(folder)!r} holds no CLIP tokenizer: {first_line(error)}") from error
