"""Write a Meissonic of formula weights, as it is published; the numbers of reference.json are of such."""

import json
import warnings

import torch
from maskrl_meissonic.network import Sizes, Transformer
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from diffusers import VQModel

TRANSFORMER = {
    "_class_name": "Transformer2DModel",
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "pooled_projection_dim": 32,
    "axes_dims_rope": [4, 6, 6],
    "vocab_size": 20,
    "codebook_size": 16,
    "downsample": True,
    "upsample": True,
}
TEXT = {
    "vocab_size": 8,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WORDS = ["<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "c</w>", "a", "b", "c"]


def write_folder(folder, formula, *, levels=2, length=6, **transformer):
    """Write it.

    Args:
        folder: that is there.
        formula: makes weights of names and shapes.
        levels: of the image tokenizer, each halves the image but one.
        length: most tokens of a text.
        transformer: what is other than in ``TRANSFORMER``.
    """
    settings = {**TRANSFORMER, **transformer}
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text(json.dumps(settings))
    with torch.device("meta"):
        network = Transformer(Sizes.model_validate(settings))
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    save_file(formula(shapes), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    write_other_parts(folder, formula, levels, length, settings["codebook_size"])
    return folder


def write_other_parts(folder, formula, levels, length, codes):
    """Write all but the transformer."""
    vqvae = VQModel(
        block_out_channels=[8] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=4,
        num_vq_embeddings=codes,
        vq_embed_dim=8,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    text = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, max_position_embeddings=length))
    for part, network in (("vqvae", vqvae), ("text_encoder", text)):
        shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
        network.load_state_dict(formula(shapes), strict=False)
        network.save_pretrained(folder / part)
    made = folder / "tokenizer"
    made.mkdir()
    (made / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (made / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(made, model_max_length=length, pad_token="<|endoftext|>")
    tokenizer.save_pretrained(made)
