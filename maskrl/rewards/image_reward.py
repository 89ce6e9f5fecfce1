"""ImageReward: what people prefer, as learned from 137,000 comparisons that experts made.

Source: Xu et al. 2023 (arXiv 2304.05977), as the package image-reward 1.5 computes it. How we differ: images come from
memory, rounded to 8 bits. docs/rewards.md says how the two were compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize

from maskrl.component import ComponentConfig
from maskrl.cut_prompts import CutPrompts
from maskrl.flops import count_flops
from maskrl.interfaces import RewardModel
from maskrl.pixels import to_bytes
from maskrl.rewards.image_reward_checkpoint import (
    PUBLISHED,
    load_network,
    load_tokenizer,
    new_network,
    read_sizes,
)
from maskrl.types import Prompt

MAX_TOKENS = 35  # of a text, [CLS] and [SEP] among them
_MEAN, _STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]  # CLIP's


class ImageReward(RewardModel):
    """A score of mean 0 and standard deviation 1 on the images it was learned from; most lie in [-2.5, 2]."""

    class Config(ComponentConfig):
        """Which model.

        ``weights`` is a hub id, or a folder in the layout of ``maskrl/rewards/image_reward_checkpoint.py``.
        ``tokenizer`` is a folder or hub id with BERT's tokenizer, where it is not beside the weights. ``dtype`` is what
        the encoders compute in; weights and head stay fp32.
        """

        weights: str = PUBLISHED
        tokenizer: str | None = None
        dtype: Literal["fp32", "bf16"] = "fp32"

    paths = ("weights", "tokenizer")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network = load_network(config.weights)
        self._tokenizer = load_tokenizer(config.tokenizer, config.weights, self._network.sizes.vocab_size)
        self.modules = (self._network,)
        self._cut = CutPrompts("ImageReward", MAX_TOKENS)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the architecture is built without memory."""
        sizes = read_sizes(config.weights)
        with init_empty_weights(include_buffers=True):
            network = new_network(sizes, config.weights)
        ids = torch.empty(1, MAX_TOKENS, dtype=torch.long, device="meta")
        pixels = torch.empty(1, 3, sizes.vision.image_size, sizes.vision.image_size, device="meta")
        flops = count_flops(lambda: network(pixels, ids, None))
        return sum(p.numel() for p in network.parameters()), flops

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B], fp32; that a text is cut is said once."""
        network = self._network
        device = next(network.parameters()).device
        ids, mask = self._tokenize([prompt.text for prompt in prompts])
        pixels = prepare(images, network.sizes.vision.image_size).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.dtype == "bf16"):
            read = network.read(network.forward_image(pixels), ids.to(device), mask.to(device))
        return network.judge(read.float())

    def _tokenize(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """B texts -> Long [B, 35] tokens, and Long [B, 35], 0 where they are padding."""
        lengths = [len(self._tokenizer.tokenize(text)) + 2 for text in texts]
        self._cut.tell([text for text, length in zip(texts, lengths, strict=True) if length > MAX_TOKENS])
        rows = self._tokenizer(
            texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        return rows["input_ids"], rows["attention_mask"]


def prepare(images: Tensor, size: int) -> Tensor:
    """Do to images in memory what was done to the files that the network learned from.

    Pillow itself resizes. On bytes of noise PyTorch's bicubic differs from it by one or two levels in a value of 200;
    on floats, and so on an accelerator, in every third, because it does not round between the two axes.

    Args:
        images: Float [B, 3, H, W] in [0, 1]; rounded to 8 bits.
        size: of the square that is cut from the centre once the shorter side has this length.

    Returns:
        Float [B, 3, size, size], normalised, on the CPU.
    """
    resized = [
        resize(Image.fromarray(a), [size], interpolation=InterpolationMode.BICUBIC) for a in to_bytes(images)
    ]
    cropped = np.stack([np.asarray(center_crop(picture, [size, size])) for picture in resized])
    prepared: Tensor = normalize(torch.from_numpy(cropped).permute(0, 3, 1, 2) / 255, _MEAN, _STD)
    return prepared
