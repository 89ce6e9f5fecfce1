"""From pixels to Mask2Former's input, and from its logits to detections, as mmdet 2.x does it.

Source: the test pipeline and ``MaskFormerFusionHead`` of mmdet 2.28.2, restated. Not the way of transformers' image
processor, which resizes to a fixed square and masks with the nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.geneval.coco import CLASSES
from maskrl.interfaces import Detection

LONGEST, SHORTEST = 1333, 800  # pixels of a resized image's sides, at most
MULTIPLE = 32  # of which the sides of the network's input are
PADDING = 128.0  # in every channel, before normalising
MEAN = (123.675, 116.28, 103.53)  # of red, green, blue in [0, 255]
STD = (58.395, 57.12, 57.375)
MAX_CANDIDATES = 100  # pairs of a query and a class


@dataclass(frozen=True)
class Frame:
    """Sizes (H, W) of an image on its way: as it is given, resized, and padded, which the network sees."""

    given: tuple[int, int]
    resized: tuple[int, int]
    padded: tuple[int, int]


def frame(height: int, width: int) -> Frame:
    """Find the sizes: the largest that keeps the proportions and fits; then padded on the right and below.

    A strip so thin that its side would round to 0, where the official code fails, keeps a pixel.
    """
    scale = min(LONGEST / max(height, width), SHORTEST / min(height, width))
    resized = max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
    padded = -(-resized[0] // MULTIPLE) * MULTIPLE, -(-resized[1] // MULTIPLE) * MULTIPLE
    return Frame((height, width), resized, padded)


def prepare(image: NDArray[np.uint8]) -> tuple[Tensor, Frame]:
    """Resize with OpenCV, pad and normalise: uint8 [H, W, 3] in RGB -> Float [1, 3, H', W'] and the sizes.

    Raises:
        RecipeError: OpenCV is not installed.
    """
    cv2, sizes = opencv(), frame(*image.shape[:2])
    height, width = sizes.resized
    canvas = np.full((*sizes.padded, 3), PADDING)
    canvas[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return normalise(canvas), sizes


def normalise(pixels: NDArray[Any]) -> Tensor:
    """[H, W, 3] in RGB, 0 to 255 -> Float [1, 3, H, W], as the network was trained."""
    return torch.from_numpy(((pixels - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]


def opencv() -> Any:
    """Import OpenCV, whose way of resizing is part of the protocol.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise RecipeError(
            "the detector 'mask2former' needs the package 'opencv-python-headless': pip install 'maskrl[geneval]'"
        ) from error
    return cv2


def candidates(class_logits: Tensor, mask_logits: Tensor, sizes: Frame) -> dict[str, list[Detection]]:
    """Turn the network's answer for one image into detections, by class, without suppression or threshold.

    The likeliest pairs of a query and a class are kept, so one mask may be reported under several classes. A score is
    the class's probability times the mean certainty of the mask's pixels. A query whose mask is empty is left out:
    officially its score is 0, which never counts.

    Args:
        class_logits: Float [Q, 81], the last class "nothing".
        mask_logits: Float [Q, h, w], at a fraction of the padded size.
        sizes: of the image.
    """
    masks, certainty = _masks(mask_logits, sizes)
    probability = class_logits.softmax(dim=-1)[:, :-1]
    top = probability.flatten().topk(min(MAX_CANDIDATES, probability.numel()))
    query, number = top.indices // len(CLASSES), top.indices % len(CLASSES)
    scores = (top.values * certainty[query]).tolist()
    binary = masks.cpu().numpy()
    found: dict[str, list[Detection]] = {}
    for q, c, score in zip(query.tolist(), number.tolist(), scores, strict=True):
        if binary[q].any():
            found.setdefault(CLASSES[c], []).append(Detection(_box(binary[q]), score, binary[q]))
    return found


def _masks(logits: Tensor, sizes: Frame) -> tuple[Tensor, Tensor]:
    """Float [Q, h, w] -> Bool [Q, H, W] at the given size, and Float [Q], the mean of sigmoid inside."""
    height, width = sizes.resized
    logits = _interpolate(logits, sizes.padded)[:, :height, :width]
    logits = _interpolate(logits, sizes.given)
    inside = logits > 0
    certainty = (logits.sigmoid() * inside).sum(dim=(1, 2)) / (inside.sum(dim=(1, 2)) + 1e-6)
    return inside, certainty


def _interpolate(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The tight bounds of a mask that is not empty; the last row and column are outside."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
