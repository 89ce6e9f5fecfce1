"""Human Preference Score v2: how well a picture serves its prompt, by people's taste.

Source: Wu et al. 2023 (arXiv 2306.09341) and the package hpsv2 1.2.0. How we differ: pictures come from memory, rounded
to 8 bits; one whose longer side has the network's size already is padded too, which the package forgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from accelerate import init_empty_weights
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import normalize, pad, resize

from maskrl.component import ComponentConfig, open_path
from maskrl.cut_prompts import CutPrompts
from maskrl.errors import RecipeError
from maskrl.flops import count_flops
from maskrl.interfaces import RewardModel
from maskrl.pixels import rounded
from maskrl.types import Prompt
from maskrl.weights import as_state_dict, fill, find_file, read_file

FILES = {"2.0": "HPS_v2_compressed.pt", "2.1": "HPS_v2.1_compressed.pt"}


class HPSv2(RewardModel):
    """The cosine between image and text features of a CLIP that learnt people's preferences."""

    class Config(ComponentConfig):
        """Which weights, and how pictures are made smaller.

        ``version``: scores of 2.0 and 2.1 cannot be compared. ``weights`` is a hub id or folder that holds the file of
        the version, or the file itself. ``model`` is its architecture in open_clip. ``antialias``: the package does
        it beside torchvision 0.17 and later, and does not beside older ones. ``dtype`` is what the network computes
        in; weights and the cosine stay fp32.
        """

        version: Literal["2.0", "2.1"] = "2.1"
        weights: str = "xswu/HPSv2"
        model: str = "ViT-H-14"
        antialias: bool = True
        dtype: Literal["fp32", "bf16"] = "fp32"

    paths = ("weights",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network = load_network(config.model, find_weights(config.weights, config.version))
        self._tokenizer: Any = open_clip.get_tokenizer(config.model)
        self._cut = CutPrompts("HPSv2", self._network.context_length)
        self.modules = (self._network,)

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`; the architecture is built without memory."""
        settings = architecture(config.model)
        side = settings["vision_cfg"]["image_size"]
        with FakeTensorMode():  # with gradients: the fast path without them is not counted
            network = open_clip.CLIP(**settings).eval()
            pixels, ids = (
                torch.zeros(1, 3, side, side),
                torch.zeros(1, network.context_length, dtype=torch.long),
            )
            flops = count_flops(lambda: (network.encode_image(pixels), network.encode_text(ids)))
        return sum(p.numel() for p in network.parameters()), flops

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B] in [-1, 1]; 0.2 to 0.4 with the published weights."""
        network, device = self._network, self._network.logit_scale.device
        texts = list(dict.fromkeys(prompt.text for prompt in prompts))
        of_prompt = torch.tensor([texts.index(prompt.text) for prompt in prompts], device=device)
        pixels = prepare(images.to(device), network.visual.image_size[0], self.config.antialias)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.dtype == "bf16"):
            image_BD = network.encode_image(pixels)
            text_UD = network.encode_text(self._tokenize(texts).to(device))
        return F.cosine_similarity(image_BD.float(), text_UD.float()[of_prompt])

    def _tokenize(self, texts: Sequence[str]) -> Tensor:
        """U texts -> Long [U, 77]; the first that is too long is named, once."""
        most = self._network.context_length
        lengths = [len(self._tokenizer.encode(text)) + 2 for text in texts]  # a start and an end
        self._cut.tell([text for text, length in zip(texts, lengths, strict=True) if length > most])
        tokens: Tensor = self._tokenizer(texts)
        return tokens


def find_weights(source: str, version: str) -> Path:
    """Find the file of a version: ``source`` itself, in the folder ``source``, or in that repository on the hub.

    Raises:
        RecipeError: it is not there, or is the file of another version.
    """
    path = Path(open_path(source))
    if not path.is_file():
        return find_file(source, FILES[version])
    other = next((v for v, name in FILES.items() if name == path.name), version)
    if other != version:
        raise RecipeError(f"{source!r} is the file of version {other}; write version = {other!r}")
    return path


def architecture(model: str) -> dict[str, Any]:
    """Return the sizes of one of open_clip's architectures.

    Raises:
        RecipeError: there is no such architecture.
    """
    settings: dict[str, Any] | None = open_clip.get_model_config(model)
    if settings is None:
        raise RecipeError(f"open_clip knows no architecture {model!r}; HPSv2's is 'ViT-H-14'")
    return settings


def load_network(model: str, path: Path) -> Any:
    """Load an architecture in fp32, frozen and in ``eval()`` mode, from a checkpoint of HPSv2's.

    Raises:
        RecipeError: there is no such architecture, the file is damaged, or it does not fit.
    """
    with init_empty_weights():
        network = open_clip.CLIP(**architecture(model))
    found = read_file(path)
    if not isinstance(found, Mapping) or "state_dict" not in found:
        raise RecipeError(f"{str(path)!r} holds no 'state_dict', as the checkpoints of HPSv2 do")
    fill(network, as_state_dict(found["state_dict"], path), path)
    return network.eval().requires_grad_(False)


def prepare(images: Tensor, size: int, antialias: bool) -> Tensor:
    """Resize the longer side, put the picture amid black, and normalise: nothing is cropped.

    What bicubic overshoots stays: the package resizes floats. A strip so thin that its side would round to 0, where the
    package fails, keeps a pixel.

    Args:
        images: Float [B, 3, H, W] in [0, 1]; rounded to 8 bits.
        size: of the square.
        antialias: whether every old pixel counts when the picture gets smaller.

    Returns:
        Float [B, 3, size, size], fp32.
    """
    pixels = rounded(images)
    scale = size / max(pixels.shape[-2:])
    height, width = (max(round(side * scale), 1) for side in pixels.shape[-2:])
    pixels = resize(pixels, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=antialias)
    left, top = (size - width) // 2, (size - height) // 2
    pixels = pad(pixels, [left, top, size - width - left, size - height - top])
    mean, std = (list(numbers) for numbers in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    prepared: Tensor = normalize(pixels, mean, std)
    return prepared
