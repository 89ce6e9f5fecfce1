"""LAION's aesthetic predictor V2: how much people like a picture, whatever its prompt.

Source: christophschuhmann/improved-aesthetic-predictor at 6934dd8. How we differ: CLIP comes through transformers;
pictures come from memory, rounded to 8 bits.
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
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize
from transformers import CLIPConfig, CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from maskrl.component import ComponentConfig, open_path
from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.interfaces import RewardModel
from maskrl.pixels import to_bytes
from maskrl.types import Prompt
from maskrl.weights import as_state_dict, fill, find_file, read_file, read_json

FILE = "sac+logos+ava1-l14-linearMSE.pth"


class Aesthetic(RewardModel):
    """An affine function of CLIP's image features of length 1, fitted to people's ratings from 0 to 10."""

    class Config(ComponentConfig):
        """Which weights.

        ``weights`` is the predictor's file, ``sac+logos+ava1-l14-linearMSE.pth``; it is on no hub, fetch it from its
        repository. ``clip`` is the CLIP it was fitted to, in transformers' layout: a hub id or a folder. ``dtype`` is
        what CLIP computes in; weights and the predictor stay fp32.
        """

        weights: str
        clip: str = "openai/clip-vit-large-patch14"
        dtype: Literal["fp32", "bf16"] = "fp32"

    paths = ("weights", "clip")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._clip = load_clip(config.clip)
        self._predictor = load_predictor(config.weights, self._clip.config.projection_dim)
        self.modules = (self._clip, self._predictor)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the networks are built without memory, only CLIP's ``config.json`` is fetched."""
        sizes = read_sizes(config.clip)
        with torch.device("meta"):
            clip, predictor = CLIPVisionModelWithProjection(sizes), Predictor(sizes.projection_dim)
            pixels = torch.zeros(1, 3, sizes.image_size, sizes.image_size)
            flops = count_flops(lambda: predictor(clip(pixel_values=pixels).image_embeds))
        return sum(p.numel() for module in (clip, predictor) for p in module.parameters()), flops

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] -> Float [B], about 1 to 10; the prompts do not matter."""
        device = self._clip.device
        pixels = prepare(images, self._clip.config.image_size).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.dtype == "bf16"):
            features_BD = self._clip(pixel_values=pixels).image_embeds
        scores_B1: Tensor = self._predictor(F.normalize(features_BD.float(), dim=1))
        return scores_B1.squeeze(1)


class Predictor(nn.Module):
    """Linear layers, nothing between them but dropout, which ends with training. Float [B, D] -> Float [B, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(width, 1024), nn.Identity()),  # where dropout was: the names in the file count it
            *(nn.Linear(1024, 128), nn.Identity()),
            *(nn.Linear(128, 64), nn.Identity()),
            *(nn.Linear(64, 16), nn.Linear(16, 1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Apply the layers."""
        rating: Tensor = self.layers(features)
        return rating


def load_predictor(source: str, width: int) -> Predictor:
    """Load the predictor for features of this width, frozen, from its file.

    Raises:
        RecipeError: it is not there, is damaged, or is of another predictor.
    """
    path = Path(open_path(source))
    if not path.is_file():
        raise RecipeError(
            f"there is no file {source!r}; fetch {FILE} from the repository "
            "christophschuhmann/improved-aesthetic-predictor on GitHub, and set weights to its path"
        )
    with init_empty_weights():
        predictor = Predictor(width)
    fill(predictor, as_state_dict(read_file(path), path), path)
    return predictor.eval().requires_grad_(False)


def read_sizes(source: str) -> Any:
    """Read the sizes of a CLIP's image half, a ``CLIPVisionConfig``, from a folder or a hub id.

    Raises:
        RecipeError: they are not there, damaged, or those of another network.
    """
    path = find_file(source, "config.json")
    settings = read_json(path)
    if settings.get("model_type") != "clip":
        raise RecipeError(f"{str(path)!r} describes a {settings.get('model_type')!r}, no 'clip'")
    sizes = CLIPConfig.from_dict(settings)
    sizes.vision_config.projection_dim = sizes.projection_dim
    return sizes.vision_config


def load_clip(source: str) -> Any:
    """Load the image half of a CLIP in fp32, frozen and in ``eval()`` mode, from a folder or a hub id.

    Raises:
        RecipeError: it is not there, is damaged, or its weights do not fit its ``config.json``.
    """
    with init_empty_weights():
        network = CLIPVisionModelWithProjection(read_sizes(source))
    path = find_file(source, "model.safetensors", "pytorch_model.bin")
    tensors = as_state_dict(read_file(path), path)
    fill(network, {key: t for key, t in tensors.items() if _of_images(key)}, path)
    return network.eval().requires_grad_(False)


def _of_images(key: str) -> bool:
    """Tell whether a tensor belongs to CLIP's image half; old files also hold the numbers 0, 1, 2..."""
    return key.startswith(("vision_model.", "visual_projection.")) and not key.endswith(".position_ids")


def prepare(images: Tensor, size: int) -> Tensor:
    """Resize the shorter side, crop the centre and normalise, as OpenAI's CLIP does.

    Pillow resizes, as it does there: PyTorch's bicubic on bytes differs by a few levels, and otherwise on each device.

    Args:
        images: Float [B, 3, H, W] in [0, 1]; rounded to 8 bits.
        size: of the square that is cut from the centre once the shorter side has this length.

    Returns:
        Float [B, 3, size, size], fp32, on the CPU.
    """
    resized = [
        resize(Image.fromarray(a), [size], interpolation=InterpolationMode.BICUBIC) for a in to_bytes(images)
    ]
    cropped = np.stack([np.asarray(center_crop(picture, [size, size])) for picture in resized])
    pixels = torch.from_numpy(cropped).permute(0, 3, 1, 2) / 255
    prepared: Tensor = normalize(pixels, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    return prepared
