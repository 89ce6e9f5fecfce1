"""CLIP similarity: how well a picture fits its prompt. The reward of the paper (section 4.1).

Source: Radford et al. 2021 (arXiv 2103.00020); weights and architectures through open_clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize

from maskrl.clip import architecture, load_clip, never_asking
from maskrl.component import ComponentConfig, open_path
from maskrl.cut_prompts import CutPrompts
from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt


class Clip(RewardModel):
    """The cosine between image and text features, times 100."""

    class Config(ComponentConfig):
        """Which CLIP.

        ``model`` is an open_clip architecture, with ``pretrained`` a tag or a weights file; or a folder that holds
        ``open_clip_config.json``, weights and tokenizer, and then ``pretrained`` is not used. ``dtype`` is what the
        network computes in; weights and the cosine stay fp32.
        """

        model: str = "ViT-L-14"
        pretrained: str | None = "openai"
        dtype: Literal["fp32", "bf16"] = "fp32"

    paths = ("model", "pretrained")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network, self._tokenizer = load_clip(config.model, config.pretrained)
        self.modules = (self._network,)
        self._cut = CutPrompts("CLIP", self._network.context_length)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the architecture is built without memory."""
        folder = Path(open_path(config.model))
        if folder.is_dir():
            settings: Any = architecture(folder)
        else:
            settings = open_clip.get_model_config(config.model)
        if settings is None:
            raise RecipeError(f"open_clip knows no architecture {config.model!r}")
        settings["text_cfg"].pop("hf_tokenizer_name", None)
        # with gradients: the fast path without them is not counted
        with torch.device("meta"), never_asking():
            try:
                network, size = open_clip.CLIP(**settings).eval(), settings["vision_cfg"]["image_size"]
            except (LookupError, TypeError, ValueError) as error:
                raise RecipeError(f"{config.model!r} describes no CLIP that can be built: {error}") from error
            pixels, ids = (
                torch.zeros(1, 3, size, size),
                torch.zeros(1, network.context_length, dtype=torch.long),
            )
            flops = count_flops(lambda: (network.encode_image(pixels), network.encode_text(ids)))
        return sum(p.numel() for p in network.parameters()), flops

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B] in [-100, 100]."""
        device = self._network.logit_scale.device
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.dtype == "bf16"):
            text_features = self._network.encode_text(self._tokenize(texts).to(device))
            image_features = self._network.encode_image(self._prepare(images.to(device)))
        of_prompt = torch.tensor([texts.index(prompt.text) for prompt in prompts], device=device)
        return 100 * F.cosine_similarity(image_features.float(), text_features.float()[of_prompt])

    def _tokenize(self, texts: list[str]) -> Tensor:
        """U texts -> Long [U, L]; the first one that is too long is named, once."""
        length = self._network.context_length
        tokens: Tensor = self._tokenizer(["", *texts], context_length=2 * length)
        padding, tokens = tokens[0, -1], tokens[1:]
        cut = (tokens[:, length:] != padding).any(dim=1).tolist()
        self._cut.tell([text for text, is_cut in zip(texts, cut, strict=True) if is_cut])
        cropped: Tensor = self._tokenizer(texts)
        return cropped

    def _prepare(self, images: Tensor) -> Tensor:
        """Resize the shorter side, crop the centre and normalise, as the network was trained."""
        visual = self._network.visual
        size = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
        if images.shape[-2:] != (size, size):
            images = resize(images, [size], interpolation=InterpolationMode.BICUBIC, antialias=True).clamp(
                0, 1
            )
            images = center_crop(images, [size, size])
        prepared: Tensor = normalize(images, list(visual.image_mean), list(visual.image_std))
        return prepared
