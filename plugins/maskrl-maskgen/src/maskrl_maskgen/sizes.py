"""What the published ``config.json`` of a generator and of a tokenizer say; what is not needed is passed over."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Size = Annotated[int, Field(ge=1)]
VIT = {"small": (512, 8, 8), "base": (768, 12, 12), "large": (1024, 24, 16)}  # width, layers, heads


class Vq(BaseModel):
    """``model.vq_model``: the codes, and the decoder that paints them.

    ``vit_dec_model_size`` is a published name, or the width, layers and heads of a decoder of another size.
    """

    quantize_mode: Literal["vq"] = "vq"
    is_legacy: Literal[False]
    finetune_decoder: Literal[False]
    use_l2_norm: Literal[False] = False
    codebook_size: Size
    token_size: Size
    num_latent_tokens: Size
    vit_dec_model_size: Literal["small", "base", "large"] | tuple[Size, Size, Size]
    vit_dec_patch_size: Size
    text_embed_dim: Size = 768
    text_context_length: Size = 77

    @property
    def decoder_sizes(self) -> tuple[int, int, int]:
        """Width, layers and heads."""
        named = self.vit_dec_model_size
        return VIT[named] if isinstance(named, str) else named


class Generator(BaseModel):
    """``model.maskgen``: the network that predicts codes."""

    decoder_embed_dim: Size
    decoder_depth: Size
    decoder_num_heads: Size
    micro_condition: Literal[True]
    micro_condition_embed_dim: Size
    condition_num_classes: int = Field(ge=0)
    weight_tying: Literal[True] = True
    sample_aesthetic_score: float = 6.0
    mask_schedule_strategy: Literal["arccos", "cosine", "linear"] = "arccos"


class GeneratorModel(BaseModel):
    """``model`` of a generator."""

    vq_model: Vq
    maskgen: Generator


class TokenizerModel(BaseModel):
    """``model`` of a tokenizer."""

    vq_model: Vq


class GeneratorFile(BaseModel):
    """The config of a generator."""

    model: GeneratorModel


class Preprocessing(BaseModel):
    """``dataset.preprocessing``: the side of an image, in pixels."""

    crop_size: Size


class Dataset(BaseModel):
    """``dataset``."""

    preprocessing: Preprocessing


class TokenizerFile(BaseModel):
    """The config of a tokenizer."""

    model: TokenizerModel
    dataset: Dataset
