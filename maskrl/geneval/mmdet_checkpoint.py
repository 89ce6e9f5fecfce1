"""The official detector's checkpoint, translated: from mmdet 2.x's names to those of transformers' published files.

Both describe one network. What differs beside names: mmdet keeps queries, keys and values of a window's attention and
of the decoder's self-attention in one tensor; and where four neighbouring patches merge, mmdet numbers the 4 C inputs
channel by channel, transformers patch by patch, and the patches in another order.

Source: names and shapes of mmdet 2.28.2, which ``tests/fixtures/mmdet_mask2former_keys.json`` lists; docs/evaluation.md
says how the two networks were compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl.weights import as_state_dict, check_shapes, read_file

_MERGED = (0, 2, 1, 3)  # transformers' patch k of a 2 x 2 square is mmdet's _MERGED[k]
_POINTS = 4  # that deformable attention looks at, per head and level
_LEVELS = 3  # of the pixel decoder's attention: strides 32, 16, 8

Sizes = Any  # a Mask2FormerConfig


@dataclass(frozen=True)
class Entry:
    """One tensor of mmdet's: its shape, and the names that its equal parts along dim 0 have in transformers.

    ``merged``: its last dim is that of four merged patches.
    """

    name: str
    shape: tuple[int, ...]
    targets: tuple[str, ...]
    merged: bool = False


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict of an mmdet checkpoint; what else it holds, ``meta``, is left aside.

    Raises:
        RecipeError: it cannot be read without running code, or holds no state dict.
    """
    found = read_file(path)
    if isinstance(found, Mapping) and "state_dict" in found:
        found = found["state_dict"]
    return as_state_dict(found, path)


def convert(tensors: Mapping[str, Tensor], sizes: Sizes, path: Path) -> dict[str, Tensor]:
    """Translate a state dict for a network of these sizes.

    Args:
        tensors: mmdet's, by name.
        sizes: a ``Mask2FormerConfig`` with Swin as its backbone.
        path: where they come from, for the message.

    Returns:
        The tensors, floats in fp32, by the names that published files of transformers have.

    Raises:
        RecipeError: a tensor is missing, unknown or of another shape; one line names them.
    """
    entries = list(layout(sizes))
    check_shapes(tensors, {entry.name: entry.shape for entry in entries}, path, "mmdet's Mask2Former")
    converted: dict[str, Tensor] = {}
    for entry in entries:
        tensor = _by_patch(tensors[entry.name]) if entry.merged else tensors[entry.name]
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        parts = tensor.chunk(len(entry.targets))
        converted |= {target: part.clone() for target, part in zip(entry.targets, parts, strict=True)}
    return converted


def _by_patch(tensor: Tensor) -> Tensor:
    """[..., C * 4] numbered channel by channel -> [..., 4 * C] patch by patch."""
    by_channel: Tensor = tensor.unflatten(-1, (-1, 4))[..., list(_MERGED)]
    return by_channel.transpose(-1, -2).flatten(-2)


def layout(sizes: Sizes) -> Iterator[Entry]:
    """List every tensor of mmdet's checkpoint for a network of these sizes."""
    yield from _swin(sizes.backbone_config)
    yield from _pixel_decoder(sizes)
    yield from _transformer_decoder(sizes)


def _affine(source: str, target: str, *shape: int, merged: bool = False) -> Iterator[Entry]:
    """A layer's weight of this shape and its bias: linear, convolution or, with one number, norm."""
    yield Entry(f"{source}.weight", shape, (f"{target}.weight",), merged)
    yield Entry(f"{source}.bias", shape[:1], (f"{target}.bias",), merged and len(shape) == 1)


def _split(source: str, joint: str, targets: tuple[str, ...], width: int) -> Iterator[Entry]:
    """Queries, keys and values in one tensor."""
    yield Entry(f"{source}{joint}weight", (3 * width, width), tuple(f"{name}.weight" for name in targets))
    yield Entry(f"{source}{joint}bias", (3 * width,), tuple(f"{name}.bias" for name in targets))


def _swin(sizes: Any) -> Iterator[Entry]:
    source, target = "backbone", "model.pixel_level_module.encoder"
    patch = (sizes.num_channels, sizes.patch_size, sizes.patch_size)
    embedding = f"{target}.embeddings.patch_embeddings.projection"
    yield from _affine(f"{source}.patch_embed.projection", embedding, sizes.embed_dim, *patch)
    yield from _affine(f"{source}.patch_embed.norm", f"{target}.embeddings.norm", sizes.embed_dim)
    for stage, depth in enumerate(sizes.depths):
        width, here = sizes.embed_dim * 2**stage, f"{source}.stages.{stage}"
        there = f"{target}.encoder.layers.{stage}"
        for block in range(depth):
            names = f"{here}.blocks.{block}", f"{there}.blocks.{block}"
            yield from _swin_block(*names, width, sizes.num_heads[stage], sizes)
        if stage < len(sizes.depths) - 1:
            yield from _affine(f"{here}.downsample.norm", f"{there}.downsample.norm", 4 * width, merged=True)
            reduction = "downsample.reduction.weight"
            yield Entry(f"{here}.{reduction}", (2 * width, 4 * width), (f"{there}.{reduction}",), merged=True)
        yield from _affine(f"{source}.norm{stage}", f"{target}.hidden_states_norms.stage{stage + 1}", width)


def _swin_block(source: str, target: str, width: int, heads: int, sizes: Any) -> Iterator[Entry]:
    window, hidden = sizes.window_size, int(sizes.mlp_ratio * width)
    attention, there = f"{source}.attn.w_msa", f"{target}.attention.self"
    table, index = "relative_position_bias_table", "relative_position_index"
    yield from _affine(f"{source}.norm1", f"{target}.layernorm_before", width)
    yield Entry(f"{attention}.{table}", ((2 * window - 1) ** 2, heads), (f"{there}.{table}",))
    yield Entry(f"{attention}.{index}", (window**2, window**2), (f"{there}.{index}",))
    yield from _split(
        attention, ".qkv.", tuple(f"{there}.{name}" for name in ("query", "key", "value")), width
    )
    yield from _affine(f"{attention}.proj", f"{target}.attention.output.dense", width, width)
    yield from _affine(f"{source}.norm2", f"{target}.layernorm_after", width)
    yield from _affine(f"{source}.ffn.layers.0.0", f"{target}.intermediate.dense", hidden, width)
    yield from _affine(f"{source}.ffn.layers.1", f"{target}.output.dense", width, hidden)


def _pixel_decoder(sizes: Sizes) -> Iterator[Entry]:
    source, target = "panoptic_head.pixel_decoder", "model.pixel_level_module.decoder"
    width, backbone = sizes.feature_size, sizes.backbone_config
    inputs = [backbone.embed_dim * 2**stage for stage in range(len(backbone.depths))]
    for level in range(_LEVELS):  # from the coarsest
        here, there = f"{source}.input_convs.{level}", f"{target}.input_projections.{level}"
        yield from _affine(f"{here}.conv", f"{there}.0", width, inputs[-1 - level], 1, 1)
        yield from _affine(f"{here}.gn", f"{there}.1", width)
    yield Entry(f"{source}.level_encoding.weight", (_LEVELS, width), (f"{target}.level_embed",))
    for layer in range(sizes.encoder_layers):
        names = f"{source}.encoder.layers.{layer}", f"{target}.encoder.layers.{layer}"
        yield from _encoder_layer(*names, sizes)
    for name, adapter, channels, side in (
        ("lateral_convs", "adapter_1", inputs[0], 1),
        ("output_convs", "layer_1", width, 3),
    ):
        here, there = f"{source}.{name}.0", f"{target}.{adapter}"
        yield Entry(f"{here}.conv.weight", (width, channels, side, side), (f"{there}.0.weight",))
        yield from _affine(f"{here}.gn", f"{there}.1", width)
    masks = sizes.mask_feature_size
    yield from _affine(f"{source}.mask_feature", f"{target}.mask_projection", masks, width, 1, 1)


def _encoder_layer(source: str, target: str, sizes: Sizes) -> Iterator[Entry]:
    width, looks = sizes.feature_size, sizes.num_attention_heads * _LEVELS * _POINTS
    here, there = f"{source}.attentions.0", f"{target}.self_attn"
    yield from _affine(f"{here}.sampling_offsets", f"{there}.sampling_offsets", 2 * looks, width)
    yield from _affine(f"{here}.attention_weights", f"{there}.attention_weights", looks, width)
    for name in ("value_proj", "output_proj"):
        yield from _affine(f"{here}.{name}", f"{there}.{name}", width, width)
    yield from _affine(f"{source}.norms.0", f"{target}.self_attn_layer_norm", width)
    yield from _feed_forward(source, target, width, sizes.encoder_feedforward_dim)
    yield from _affine(f"{source}.norms.1", f"{target}.final_layer_norm", width)


def _feed_forward(source: str, target: str, width: int, hidden: int) -> Iterator[Entry]:
    yield from _affine(f"{source}.ffns.0.layers.0.0", f"{target}.fc1", hidden, width)
    yield from _affine(f"{source}.ffns.0.layers.1", f"{target}.fc2", width, hidden)


def _transformer_decoder(sizes: Sizes) -> Iterator[Entry]:
    source, target, width = "panoptic_head", "model.transformer_module", sizes.hidden_dim
    decoder = f"{target}.decoder"
    for layer in range(sizes.decoder_layers - 1):  # transformers counts the prediction before the first layer
        names = f"{source}.transformer_decoder.layers.{layer}", f"{decoder}.layers.{layer}"
        yield from _decoder_layer(*names, width, sizes.dim_feedforward)
    yield from _affine(f"{source}.transformer_decoder.post_norm", f"{decoder}.layernorm", width)
    for name, there, rows in (
        ("query_embed", "queries_embedder", sizes.num_queries),
        ("query_feat", "queries_features", sizes.num_queries),
        ("level_embed", "level_embed", _LEVELS),
    ):
        yield Entry(f"{source}.{name}.weight", (rows, width), (f"{target}.{there}.weight",))
    yield from _affine(f"{source}.cls_embed", "class_predictor", sizes.num_labels + 1, width)
    for layer, out in enumerate((width, width, sizes.mask_feature_size)):
        there = f"{decoder}.mask_predictor.mask_embedder.{layer}.0"
        yield from _affine(f"{source}.mask_embed.{2 * layer}", there, out, width)


def _decoder_layer(source: str, target: str, width: int, hidden: int) -> Iterator[Entry]:
    for index, name in enumerate(("cross_attn", "self_attn")):
        here, there = f"{source}.attentions.{index}.attn", f"{target}.{name}"
        if name == "cross_attn":
            yield Entry(f"{here}.in_proj_weight", (3 * width, width), (f"{there}.in_proj_weight",))
            yield Entry(f"{here}.in_proj_bias", (3 * width,), (f"{there}.in_proj_bias",))
        else:
            yield from _split(here, ".in_proj_", tuple(f"{there}.{letter}_proj" for letter in "qkv"), width)
        yield from _affine(f"{here}.out_proj", f"{there}.out_proj", width, width)
        yield from _affine(f"{source}.norms.{index}", f"{there}_layer_norm", width)
    yield from _feed_forward(source, target, width, hidden)
    yield from _affine(f"{source}.norms.2", f"{target}.final_layer_norm", width)
