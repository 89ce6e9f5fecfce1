"""PickScore: which of two pictures people would pick for a prompt.

Source: Kirstain et al. 2023 (arXiv 2305.01569) and yuvalkirstain/PickScore at f79607f. How we differ: pictures come
from memory, rounded to 8 bits; texts are padded to 77 tokens, which changes no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import crop, normalize, resize
from transformers import AutoTokenizer, CLIPConfig, CLIPModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from maskrl.component import ComponentConfig, open_path
from maskrl.cut_prompts import CutPrompts
from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.interfaces import RewardModel
from maskrl.pixels import to_bytes
from maskrl.types import Prompt
from maskrl.weights import as_state_dict, fill, find_file, first_line, read_file, read_json, unreachable


class PickScore(RewardModel):
    """The cosine between image and text features of a CLIP that learnt people's choices, times its ``logit_scale``."""

    class Config(ComponentConfig):
        """Which weights.

        ``model`` (a CLIP in transformers' layout) and ``tokenizer`` are hub ids or folders. ``dtype`` is what the
        network computes in; weights and the cosine stay fp32.
        """

        model: str = "yuvalkirstain/PickScore_v1"
        tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        dtype: Literal["fp32", "bf16"] = "fp32"

    paths = ("model", "tokenizer")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network = load_clip(config.model)
        self._sizes = self._network.config
        self._tokenizer = load_tokenizer(config.tokenizer, self._sizes.text_config.vocab_size)
        self._cut = CutPrompts("PickScore", self._sizes.text_config.max_position_embeddings)
        self.modules = (self._network,)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the network is built without memory, only its ``config.json`` is fetched."""
        sizes = read_sizes(config.model)
        side, length = sizes.vision_config.image_size, sizes.text_config.max_position_embeddings
        with torch.device("meta"):
            network = CLIPModel(sizes)
            pixels, ids = torch.zeros(1, 3, side, side), torch.zeros(1, length, dtype=torch.long)
            flops = count_flops(
                lambda: (
                    network.get_image_features(pixel_values=pixels),
                    network.get_text_features(input_ids=ids),
                )
            )
        return sum(p.numel() for p in network.parameters()), flops

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B]; 17 to 27 or so with the published weights."""
        network, device = self._network, self._network.logit_scale.device
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        of_prompt = torch.tensor([texts.index(prompt.text) for prompt in prompts], device=device)
        pixels = prepare(images, self._sizes.vision_config.image_size).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.dtype == "bf16"):
            image_BD = features(network.get_image_features(pixel_values=pixels))
            text_UD = features(network.get_text_features(**self._tokenize(texts).to(device)))
        scores: Tensor = network.logit_scale.exp() * F.cosine_similarity(image_BD, text_UD[of_prompt])
        return scores

    def _tokenize(self, texts: Sequence[str]) -> Any:
        """U texts -> ``input_ids`` and ``attention_mask``, Long [U, L]; the first that is too long is named, once."""
        most = self._sizes.text_config.max_position_embeddings
        lengths = [len(ids) for ids in self._tokenizer(texts, verbose=False).input_ids]
        self._cut.tell([text for text, length in zip(texts, lengths, strict=True) if length > most])
        return self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=most, return_tensors="pt"
        )


def read_sizes(source: str) -> Any:
    """Read the ``CLIPConfig`` of a folder or a hub id.

    Raises:
        RecipeError: it is not there, is damaged, or describes another network.
    """
    path = find_file(source, "config.json")
    settings = read_json(path)
    if settings.get("model_type") != "clip":
        raise RecipeError(f"{str(path)!r} describes a {settings.get('model_type')!r}, no 'clip'")
    return CLIPConfig.from_dict(settings)


def load_clip(source: str) -> Any:
    """Load a ``CLIPModel`` in fp32, frozen and in ``eval()`` mode, from a folder or a hub id.

    Raises:
        RecipeError: it is not there, is damaged, or its weights do not fit its ``config.json``.
    """
    with init_empty_weights():
        network = CLIPModel(read_sizes(source))
    path = find_file(source, "model.safetensors", "pytorch_model.bin")
    tensors = as_state_dict(read_file(path), path)
    # files written by transformers before 4.31 hold the numbers 0, 1, 2... too
    fill(network, {key: t for key, t in tensors.items() if not key.endswith(".position_ids")}, path)
    return network.eval().requires_grad_(False)


def load_tokenizer(source: str, vocab_size: int) -> Any:
    """Load CLIP's tokenizer from a folder or a hub id.

    Raises:
        RecipeError: it is not there, is damaged, or has another number of tokens than ``vocab_size``.
    """
    folder = open_path(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of a damaged file the library tokenizers raises just that
        if Path(folder).is_dir():
            raise RecipeError(f"the tokenizer in {source!r} cannot be read: {first_line(error)}") from error
        raise RecipeError(unreachable(f"the tokenizer {source!r}", error)) from error
    if len(tokenizer) != vocab_size:  # transformers 5 may make one of 2 tokens where there is none
        raise RecipeError(
            f"the tokenizer {source!r} has {len(tokenizer)} tokens, the network reads {vocab_size}"
        )
    return tokenizer


def prepare(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side, crop the centre and normalise, as transformers' ``CLIPImageProcessor`` did in training.

    Pillow resizes, as it did there: PyTorch's bicubic on bytes differs by a few levels, and otherwise on each device.

    Args:
        images: Float [B, 3, H, W] in [0, 1]; rounded to 8 bits.
        size: of the square that is cut from the centre once the shorter side has this length.

    Returns:
        Float [B, 3, size, size], fp32, on the CPU.
    """
    resized = [
        resize(Image.fromarray(a), [size], interpolation=InterpolationMode.BICUBIC) for a in to_bytes(images)
    ]
    left, top = ((side - size) // 2 for side in resized[0].size)  # torchvision's crop rounds otherwise
    cropped = np.stack([np.asarray(crop(picture, top, left, size, size)) for picture in resized])
    pixels = torch.from_numpy(cropped).permute(0, 3, 1, 2) / 255
    prepared: Tensor = normalize(pixels, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    return prepared


def features(found: Any) -> Tensor:
    """Return features in fp32; transformers 4 hands out the tensor, 5 an output that holds it."""
    tensor: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return tensor.float()
