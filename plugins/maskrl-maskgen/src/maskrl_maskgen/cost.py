"""What a MaskGen costs: its networks, run on tensors without memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from maskrl.clip import architecture
from maskrl.component import open_path
from maskrl.counting import Counted, Places
from maskrl.errors import RecipeError
from maskrl.types import GeneratorSpec
from maskrl.weights import built_from, read_json
from maskrl_maskgen.network import MaskGenNetwork
from maskrl_maskgen.sizes import GeneratorFile, GeneratorModel, TokenizerFile
from maskrl_maskgen.tatitok import TaTiTok

# Source: the ``config.json`` files of the repositories on the hub
_VQ = {
    **{"is_legacy": False, "finetune_decoder": False, "codebook_size": 8192, "token_size": 64},
    **{"num_latent_tokens": 128, "vit_dec_model_size": "large", "vit_dec_patch_size": 16},
}
_MASKGEN = {
    **{"decoder_num_heads": 16, "micro_condition": True, "micro_condition_embed_dim": 256},
    "condition_num_classes": 1000,
}
_GENERATORS = {
    "turkeyju/generator_maskgen_vq_l": {"decoder_embed_dim": 1024, "decoder_depth": 16},
    "turkeyju/generator_maskgen_vq_xl": {"decoder_embed_dim": 1280, "decoder_depth": 20},
}
_TOKENIZERS = {
    "turkeyju/tokenizer_tatitok_bl128_vq": {
        "model": {"vq_model": _VQ},
        "dataset": {"preprocessing": {"crop_size": 256}},
    }
}


def sizes_of(checkpoint: str, tokenizer: str) -> tuple[GeneratorModel, TokenizerFile]:
    """Return the sizes of a generator and a tokenizer, from their folders or as published.

    Raises:
        RecipeError: one is neither, or describes nothing that can be built.
    """
    made, painted = (Path(open_path(name)) / "config.json" for name in (checkpoint, tokenizer))
    with built_from(checkpoint):
        if made.is_file():
            sizes = GeneratorFile.model_validate(read_json(made)).model
        else:
            own = _known(checkpoint, _GENERATORS)
            sizes = GeneratorModel.model_validate({"vq_model": _VQ, "maskgen": {**own, **_MASKGEN}})
    with built_from(tokenizer):
        if painted.is_file():
            return sizes, TokenizerFile.model_validate(read_json(painted))
        return sizes, TokenizerFile.model_validate(_known(tokenizer, _TOKENIZERS))


def _known(name: str, published: dict[str, Any]) -> Any:
    if name not in published:
        raise RecipeError(
            f"the sizes of {name!r} are not known here: give a folder, or {' or '.join(published)}"
        )
    return published[name]


def reader_of(model: str) -> nn.Module:
    """Build the text half of a CLIP, an architecture or a folder, without memory for its weights.

    Raises:
        RecipeError: it describes no CLIP.
    """
    folder = Path(open_path(model))
    settings: Any = architecture(folder) if folder.is_dir() else open_clip.get_model_config(model)
    if settings is None:
        raise RecipeError(f"open_clip knows no architecture {model!r}")
    settings["text_cfg"].pop("hf_tokenizer_name", None)
    with built_from(model), torch.device("meta"):
        network: Any = open_clip.CLIP(**settings)
    del network.visual
    reader: nn.Module = network
    return reader


def counted(
    sizes: GeneratorModel, tokenizer: TokenizerFile, text_model: str, spec: GeneratorSpec
) -> Counted[MaskGenNetwork]:
    """Say how these networks are run."""
    vq, maskgen, painted_vq = sizes.vq_model, sizes.maskgen, tokenizer.model.vq_model
    length, width = painted_vq.text_context_length, vq.text_embed_dim
    with torch.device("meta"):
        tatitok = TaTiTok(painted_vq, tokenizer.dataset.preprocessing.crop_size)

    def build() -> MaskGenNetwork:
        with torch.device("meta"):
            return MaskGenNetwork(vq, maskgen).eval()

    def predict(network: MaskGenNetwork, rows: int, places: Places) -> Tensor:
        wanted: Any = places  # indices pick as a mask does
        predicted: Tensor = network(
            torch.zeros(rows, spec.num_tokens, dtype=torch.long),
            torch.zeros(rows, length, width),
            torch.zeros(rows, width),
            maskgen.sample_aesthetic_score,
            wanted,
        )
        return predicted

    def paint() -> Tensor:
        codes = torch.zeros(1, spec.num_tokens, dtype=torch.long)
        painted: Tensor = tatitok(codes, torch.zeros(1, length, width))
        return painted.clamp(0, 1)

    readers = (reader_of(text_model),)
    return Counted(spec, build, predict, MaskGenNetwork.checkpoint_activations, tatitok, paint, readers)
