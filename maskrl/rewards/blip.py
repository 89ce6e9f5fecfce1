"""The network of ImageReward: BLIP's image encoder, its text encoder that looks at the image, and a head of one number.

Both encoders are transformers' own, with what a config of theirs does not default to: layer norms with 1e-6 for images
and 1e-12 for text, no causal mask, no dropout.

Source: Xu et al. 2023 (arXiv 2304.05977); Li et al. 2022 (arXiv 2201.12086); computed as image-reward 1.5 does.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the head's number, on the images it was learned from
_DROPOUT = (0.2, 0.2, 0.1, 0.0, 0.0)  # after the head's layers, in training
_NO_SPECIAL_TOKENS = dict.fromkeys(
    ("bos_token_id", "sep_token_id", "pad_token_id")
)  # the tokenizer knows them
_VISION_NAMES = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "encoder.layers.": "blocks.",
    ".self_attn.qkv.": ".attn.qkv.",
    ".self_attn.projection.": ".attn.proj.",
    ".layer_norm": ".norm",
    "post_layernorm.": "norm.",
}


class VisionSizes(BaseModel):
    """A vision transformer on square images; by default ViT-L/16 at 224 pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: PositiveInt = 224
    patch_size: PositiveInt = 16
    hidden_size: PositiveInt = 1024
    num_hidden_layers: PositiveInt = 24
    num_attention_heads: PositiveInt = 16


class Sizes(BaseModel):
    """What ``med_config.json`` says; by default as published.

    ``vision`` and ``head``, the widths between the text encoder and the number, are not in the published file. Other
    keys say nothing of the network.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: PositiveInt = 30524
    hidden_size: PositiveInt = 768
    num_hidden_layers: PositiveInt = 12
    num_attention_heads: PositiveInt = 12
    intermediate_size: PositiveInt = 3072
    max_position_embeddings: PositiveInt = 512
    layer_norm_eps: PositiveFloat = 1e-12
    hidden_act: Literal["gelu"] = "gelu"
    vision: VisionSizes = VisionSizes()
    head: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (1024, 128, 64, 16)


class ImageRewardNetwork(nn.Module):
    """Judges how well prepared images fit tokenized texts. A new one has random weights, ready to be trained.

    Raises:
        ValueError: attention heads do not share a width.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        text, width = sizes.model_dump(exclude={"vision", "head"}), sizes.vision.hidden_size
        vision = BlipVisionConfig(
            **sizes.vision.model_dump(),
            intermediate_size=4 * width,
            layer_norm_eps=1e-6,
            initializer_range=0.02,
        )
        decoder = BlipTextConfig(**text, encoder_hidden_size=width, is_decoder=True, **_NO_SPECIAL_TOKENS)
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(decoder, add_pooling_layer=False)
        widths = (sizes.hidden_size, *sizes.head, 1)
        layers: list[nn.Module] = []  # no activations between them, as published
        for before, after, dropout in zip(widths, widths[1:], _DROPOUT, strict=False):
            layers += [nn.Linear(before, after), *([nn.Dropout(dropout)] if dropout else [])]
        self.head = nn.Sequential(*layers)

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Judge B images by B texts: :meth:`forward_image`, :meth:`read`, :meth:`judge`. -> Float [B]."""
        return self.judge(self.read(self.forward_image(pixels), ids, mask))

    def forward_image(self, pixels: Tensor) -> Tensor:
        """See B images: Float [B, 3, S, S], normalised, S = ``sizes.vision.image_size`` -> Float [B, K, D]."""
        seen: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return seen

    def read(self, seen: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Read B texts in sight of their images.

        Args:
            seen: Float [B, K, D], of :meth:`forward_image`.
            ids: Long [B, L], the tokens of a text, [CLS] first: what the encoder makes of it is returned.
            mask: Long [B, L], 1 where there is a token and 0 where there is padding; None for tokens everywhere.

        Returns:
            Float [B, C], C = ``sizes.hidden_size``.
        """
        # is_decoder=False: without the causal mask of a decoder, whose cross-attention it has
        read = self.text(ids, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        first: Tensor = read.last_hidden_state[:, 0]
        return first

    def judge(self, read: Tensor) -> Tensor:
        """Give texts read in sight of images their scores: Float [B, C] -> Float [B], after ``MEAN`` and ``STD``."""
        raw: Tensor = self.head(read)[:, 0]
        return (raw - MEAN) / STD


def published_name(name: str) -> str:
    """Return what the published file calls a tensor of :class:`ImageRewardNetwork`'s state dict."""
    part, _, inside = name.partition(".")
    if part == "text":
        return f"blip.text_encoder.{inside}"
    if part == "head":
        return f"mlp.layers.{inside}"
    for ours, theirs in _VISION_NAMES.items():
        inside = inside.replace(ours, theirs)
    return f"blip.visual_encoder.{inside}"
