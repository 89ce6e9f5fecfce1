"""What a Meissonic costs: its networks, run on tensors without memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import VQModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from maskrl.component import open_path
from maskrl.counting import Counted, Places
from maskrl.diffusers_folder import VQVAE
from maskrl.errors import RecipeError
from maskrl.types import GeneratorSpec
from maskrl.weights import built_from, read_json
from maskrl_meissonic.checkpoint import SETTINGS, Parts
from maskrl_meissonic.network import NUMBERS, Sizes, Transformer

# Source: ``transformer/config.json`` of MeissonFlow/Meissonic, and that of LAION's CLIP ViT-H/14
_PUBLISHED = "MeissonFlow/Meissonic"
_TRANSFORMER = {
    **{"num_layers": 14, "num_single_layers": 28, "attention_head_dim": 128, "num_attention_heads": 8},
    **{"joint_attention_dim": 1024, "pooled_projection_dim": 1024, "axes_dims_rope": [16, 56, 56]},
    **{"vocab_size": 8256, "codebook_size": 8192, "downsample": True, "upsample": True},
}
_TEXT = {
    **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    **{"projection_dim": 1024, "hidden_act": "gelu"},
}


def unfilled(checkpoint: str, transformer: str | None, text_encoder: str | None) -> Parts:
    """Build the networks of a folder, or of the published checkpoint, without memory for their weights.

    Another text encoder that is no folder is taken to be of the checkpoint's size.

    Raises:
        RecipeError: it is neither, or describes nothing that can be built.
    """
    found = _settings(checkpoint)
    for part, place in (("transformer", transformer), ("text_encoder", text_encoder)):
        if place is not None and (folder := Path(open_path(place))).is_dir():
            found[part] = read_json(folder / SETTINGS)
    with built_from(checkpoint), torch.device("meta"):
        return Parts(
            transformer=Transformer(Sizes.model_validate(found["transformer"])).eval(),
            settings=dict(found["transformer"]),
            vqvae=VQModel.from_config(found["vqvae"]).eval(),
            text_encoder=CLIPTextModelWithProjection(CLIPTextConfig.from_dict(found["text_encoder"])),
            tokenizer=None,
        )


def _settings(checkpoint: str) -> dict[str, Mapping[str, Any]]:
    folder = Path(open_path(checkpoint))
    parts = ("transformer", "vqvae", "text_encoder")
    if folder.is_dir():
        return {part: read_json(folder / part / SETTINGS) for part in parts}
    if checkpoint == _PUBLISHED:
        return dict(zip(parts, (_TRANSFORMER, VQVAE, _TEXT), strict=True))
    raise RecipeError(f"the sizes of {checkpoint!r} are not known here: give a folder, or {_PUBLISHED}")


def counted(parts: Parts, spec: GeneratorSpec) -> Counted[Transformer]:
    """Say how these networks are run."""
    assert spec.grid is not None
    grid, text, latent = spec.grid, parts.text_encoder.config, parts.vqvae.config.latent_channels

    def build() -> Transformer:
        with torch.device("meta"):
            return Transformer(parts.transformer.sizes).eval()

    def predict(network: Transformer, rows: int, places: Places) -> Tensor:
        wanted: Any = places  # indices pick as a mask does
        predicted: Tensor = network(
            torch.zeros(rows, *grid, dtype=torch.long),
            torch.zeros(rows, text.max_position_embeddings, text.hidden_size),
            torch.zeros(rows, text.projection_dim),
            torch.zeros(rows, NUMBERS),
            torch.zeros(rows),
            wanted,
        )
        return predicted

    def paint() -> Tensor:
        codes = torch.zeros(1, *grid, dtype=torch.long)
        shape = (*codes.shape, latent)
        painted: Tensor = parts.vqvae.decode(codes, force_not_quantize=True, shape=shape).sample
        return painted.clip(0, 1)

    recompute = Transformer.checkpoint_activations
    return Counted(spec, build, predict, recompute, parts.vqvae, paint, (parts.text_encoder,))
