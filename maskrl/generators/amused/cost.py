"""What an aMUSEd costs: diffusers' networks, run on tensors without memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from maskrl.component import open_path
from maskrl.counting import Counted, Places
from maskrl.diffusers_folder import VQVAE
from maskrl.errors import RecipeError
from maskrl.generators.amused.checkpoint import Parts, diffusers_classes
from maskrl.generators.amused.recompute import recompute_all
from maskrl.types import GeneratorSpec
from maskrl.weights import built_from, read_json

CONFIG = "config.json"
NUMBERS = 5  # about an image
# Source: the ``config.json`` files of the repositories on the hub; what is not here is as by default in diffusers.
_TRANSFORMER: Mapping[str, Mapping[str, Any]] = {
    "amused/amused-256": {"sample_size": 16},
    "amused/amused-512": {"sample_size": 32, "downsample": True, "upsample": True},
}
_TEXT: Mapping[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "projection_dim": 768,
}


def unfilled(checkpoint: str, transformer: str | None) -> Parts:
    """Build the networks of a folder, or of a published checkpoint, without memory for their weights.

    Raises:
        RecipeError: it is neither, or describes nothing that can be built.
    """
    models = diffusers_classes()
    of_transformer, of_vqvae, of_text = _settings(checkpoint, transformer)
    with built_from(checkpoint), torch.device("meta"):
        return Parts(
            transformer=models["UVit2DModel"].from_config(of_transformer).eval(),
            vqvae=models["VQModel"].from_config(of_vqvae).eval(),
            text_encoder=CLIPTextModelWithProjection(CLIPTextConfig.from_dict(of_text)),
            tokenizer=None,
        )


def _settings(checkpoint: str, transformer: str | None) -> tuple[Mapping[str, Any], ...]:
    folder, parts = Path(open_path(checkpoint)), ("transformer", "vqvae", "text_encoder")
    if folder.is_dir():
        own, vqvae, text = (read_json(folder / part / CONFIG) for part in parts)
    elif checkpoint in _TRANSFORMER:
        own, vqvae, text = dict(_TRANSFORMER[checkpoint]), dict(VQVAE), dict(_TEXT)
    else:
        known = " or ".join(_TRANSFORMER)
        raise RecipeError(f"the sizes of {checkpoint!r} are not known here: give a folder, or {known}")
    return (own if transformer is None else read_json(Path(open_path(transformer)) / CONFIG)), vqvae, text


def counted(parts: Parts, spec: GeneratorSpec) -> Counted[Any]:
    """Say how these networks are run: codes of all positions are computed, whichever are asked for."""
    assert spec.grid is not None
    grid, text, latent = spec.grid, parts.text_encoder.config, parts.vqvae.config.latent_channels
    length = text.max_position_embeddings

    def build() -> Any:
        with torch.device("meta"):
            return type(parts.transformer).from_config(parts.transformer.config).eval()

    def predict(network: Any, rows: int, places: Places) -> Tensor:
        planes: Tensor = network(
            torch.zeros(rows, *grid, dtype=torch.long),
            encoder_hidden_states=torch.zeros(rows, length, text.hidden_size),
            pooled_text_emb=torch.zeros(rows, text.projection_dim),
            micro_conds=torch.zeros(rows, NUMBERS),
        )
        return planes.flatten(2).transpose(1, 2)[places]

    def paint() -> Tensor:
        codes = torch.zeros(1, *grid, dtype=torch.long)
        shape = (*codes.shape, latent)
        painted: Tensor = parts.vqvae.decode(codes, force_not_quantize=True, shape=shape).sample
        return painted.clip(0, 1)

    return Counted(spec, build, predict, recompute_all, parts.vqvae, paint, (parts.text_encoder,))
