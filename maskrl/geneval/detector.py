"""GenEval's own judge: Mask2Former finds objects of COCO's 80 classes, CLIP names their colours. No mmdet at run time.

Source: Ghosh et al. 2023 (arXiv 2310.11513) and djghosh13/geneval at af4902f. Images come from memory in RGB, rounded
to 8 bits; officially they are read from PNG files, which hold the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maskrl.clip import load_clip
from maskrl.component import ComponentConfig
from maskrl.geneval.coco import CLASSES, COLORS
from maskrl.geneval.color import ColorClassifier
from maskrl.geneval.instances import candidates, opencv, prepare
from maskrl.geneval.mask2former import Origin, load_network
from maskrl.geneval.self_test import (
    check_colors,
    check_file,
    check_known_images,
    check_network,
    read_known_images,
)
from maskrl.interfaces import Detection, Detector
from maskrl.pixels import to_bytes

OFFICIAL_CLIP = (("ViT-L-14", "openai"), ("ViT-L-14-quickgelu", "openai"))


class Mask2FormerDetector(Detector):
    """The official detector, or one of its architecture with other weights, which then says so in ``label``."""

    class Config(ComponentConfig):
        """Which weights.

        ``weights`` is the official checkpoint's file, or another of the same architecture in mmdet 2.x's layout; or a
        folder or hub id in transformers' layout, such as facebook/mask2former-swin-small-coco-instance (other weights,
        for non-commercial use). ``clip_model`` and ``clip_pretrained`` are what the reward ``clip`` calls ``model`` and
        ``pretrained``. ``known_images`` is a folder of photographs named after what they show (``dog_1.jpg``), which
        the self-test must find.
        """

        weights: str
        clip_model: str = "ViT-L-14"
        clip_pretrained: str | None = "openai"
        known_images: str | None = None

    paths = ("weights", "clip_model", "clip_pretrained", "known_images")
    classes = CLASSES
    colors = COLORS

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        opencv()
        self._known = read_known_images(config.known_images) if config.known_images else ()
        self._network, self._origin = load_network(config.weights)
        clip, tokenizer = load_clip(config.clip_model, config.clip_pretrained)
        self._classifier = ColorClassifier(clip, tokenizer)
        self.modules: tuple[nn.Module, ...] = (self._network, clip)
        self.label = name_results(self._origin, (config.clip_model, config.clip_pretrained))

    def detect(self, image: Tensor) -> dict[str, list[Detection]]:
        """Float [3, H, W] in [0, 1] -> the 100 likeliest pairs of a mask and a class, whose mask is not empty."""
        pixels, sizes = prepare(to_bytes(image))
        class_logits, mask_logits = forward(self._network, pixels)
        return candidates(class_logits, mask_logits, sizes)

    def color(self, image: Tensor, detection: Detection, class_name: str) -> str:
        """Name the most similar of the ten colours."""
        return self._classifier.name(to_bytes(image), detection, class_name)

    def self_test(self) -> None:
        """Test the file, both networks on drawings, Mask2Former against the CPU too, and the photographs if any.

        Without photographs this tells a broken detector from a working one, not a good from a bad one.

        Raises:
            TrainingError: it names what failed.
        """
        check_file(self._origin)
        check_network(self._network, forward)
        check_colors(self._classifier)
        check_known_images(self._known, self.detect)


def name_results(origin: Origin, clip: tuple[str, str | None]) -> str:
    """Say what numbers are called: GenEval's only with the official weights of both networks."""
    if clip not in OFFICIAL_CLIP:
        return "GenEval-other"
    if origin.official:
        return "GenEval"
    return "GenEval-HF" if origin.sha256 is None else "GenEval-other"


@torch.no_grad()
def forward(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Float [1, 3, H, W], normalised -> class logits Float [Q, 81] and mask logits Float [Q, H / 4, W / 4], in fp32."""
    device = next(network.parameters()).device
    with torch.autocast(device.type, enabled=False):
        answer: Any = network(pixel_values=pixels.to(device))
    return answer.class_queries_logits[0], answer.masks_queries_logits[0]
