"""Name the colour of a detected object with CLIP, as GenEval does.

The object is cut out by its mask, laid on grey, cropped to its box and compared with three sentences per colour.

Source: ``evaluate_images.py`` of djghosh13/geneval at af4902f and clip-benchmark 1.4.0, restated. On CUDA both towers
and the comparison run in fp16 autocast, as there; elsewhere in fp32, where the official code does not run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor

from maskrl.geneval.coco import COLORS
from maskrl.interfaces import Detection

TEMPLATES = (
    "a photo of a {color} {class_name}",
    "a photo of a {color}-colored {class_name}",
    "a photo of a {color} object",
)
GREY = 153  # in every channel, around the object


class ColorClassifier:
    """A CLIP, and the text features of the colours, computed once per class."""

    def __init__(self, network: Any, tokenizer: Any, colors: Sequence[str] = COLORS) -> None:
        """Build on a network of open_clip and its tokenizer."""
        self.network, self.colors = network, tuple(colors)
        self._tokenizer = tokenizer
        settings = PreprocessCfg(**network.visual.preprocess_cfg)
        self._transform = image_transform_v2(settings, is_train=False)
        self._classifiers: dict[str, Tensor] = {}

    def name(self, image: NDArray[np.uint8], detection: Detection, class_name: str) -> str:
        """Return the most similar colour, the first of equals; ``image`` is uint8 [H, W, 3]."""
        return self.colors[int(self.similarities(image, detection, class_name).argmax())]

    @torch.no_grad()
    def similarities(self, image: NDArray[np.uint8], detection: Detection, class_name: str) -> Tensor:
        """Return Float [colors], 100 times the cosine between the object and each colour."""
        device = self._device
        if class_name not in self._classifiers:
            self._classifiers[class_name] = self._text_features(class_name)
        pixels: Tensor = self._transform(cut_out(image, detection)).unsqueeze(0).to(device)
        with self._precision():
            features = F.normalize(self.network.encode_image(pixels), dim=-1)
            similarities = 100 * features @ self._classifiers[class_name].to(device)
        return similarities[0].float()

    @torch.no_grad()
    def _text_features(self, class_name: str) -> Tensor:
        """Return Float [features, colors] of unit length: the mean over the templates."""
        columns = []
        with self._precision():
            for color in self.colors:
                texts = [template.format(color=color, class_name=class_name) for template in TEMPLATES]
                features = self.network.encode_text(self._tokenizer(texts).to(self._device))
                mean = F.normalize(features, dim=-1).mean(dim=0)
                columns.append(mean / mean.norm())
        return torch.stack(columns, dim=1)

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.network.logit_scale.device
        return device

    def _precision(self) -> torch.autocast:
        cuda = self._device.type == "cuda"
        return torch.autocast(self._device.type, dtype=torch.float16 if cuda else None, enabled=cuda)


def cut_out(image: NDArray[np.uint8], detection: Detection) -> Image.Image:
    """Lay an object on grey and crop to its box: uint8 [H, W, 3] -> an RGB image of the box's size."""
    canvas = np.where(detection.mask[..., None], image, np.uint8(GREY))
    left, upper, right, lower = (round(edge) for edge in detection.box)
    return Image.fromarray(canvas).crop((left, upper, right, lower))
