"""CLIP similarity: how well a picture fits its prompt. The reward of the paper (section 4.1).

Source: Radford et al. 2021 (arXiv 2103.00020); weights and architectures through open_clip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize

from maskrl.clip import load_clip
from maskrl.component import ComponentConfig, open_path
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt


class Clip(RewardModel):
    """The cosine between image and text features, times 100."""

    class Config(ComponentConfig):
        """Which CLIP.

        ``model`` is an open_clip architecture, with ``pretrained`` a tag or a weights file; or a folder that holds
        ``open_clip_config.json``, weights and tokenizer, and then ``pretrained`` is not used.
        """

        model: str = "ViT-L-14"
        pretrained: str | None = "openai"

    paths = ("model", "pretrained")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network, self._tokenizer = load_clip(config.model, config.pretrained)
        self.modules = (self._network,)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the architecture is built without memory."""
        folder = Path(open_path(config.model))
        if folder.is_dir():
            settings = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        else:
            settings = open_clip.get_model_config(config.model)
        if settings is None:
            raise RecipeError(f"open_clip knows no architecture {config.model!r}")
        settings["text_cfg"].pop("hf_tokenizer_name", None)
        with FakeTensorMode():  # with gradients: the fast path without them is not counted
            network = open_clip.CLIP(**settings).eval()
            size = settings["vision_cfg"]["image_size"]
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
                network.encode_image(torch.zeros(1, 3, size, size))
                network.encode_text(torch.zeros(1, network.context_length, dtype=torch.long))
        return sum(p.numel() for p in network.parameters()), float(counted.get_total_flops())

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B] in [-100, 100]."""
        device = self._network.logit_scale.device
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        text_features = self._network.encode_text(self._tokenizer(texts).to(device), normalize=True)
        image_features = self._network.encode_image(self._prepare(images.to(device)), normalize=True)
        of_prompt = torch.tensor([texts.index(prompt.text) for prompt in prompts], device=device)
        cosine: Tensor = (image_features * text_features[of_prompt]).sum(dim=1)
        return 100 * cosine.float()

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
