"""Finds the shapes in a picture by comparing silhouettes with the shapes of the world: exact on what the world paints.

Every connected blob that is not white is cut out, scaled to a common size and compared with each shape's
silhouette; the best overlap decides the class, and how good it is the score. Malformed blobs, blobs of several
colours and objects that touch score low, so GenEval's thresholds drop them.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from skimage.transform import resize
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import TrainingError
from maskrl.geneval.scoring import select
from maskrl.interfaces import Detection, Detector
from maskrl.shapes.world import BACKGROUND, COLORS, IMAGE_SIZE, RADIUS, SHAPES, Thing, paint

Pixels = NDArray[np.float64]

_SIDE = 24  # silhouettes are compared at this size
_FAINT = 0.3  # less paint than this is no part of an object
_SMALLEST = 20  # pixels; the world's smallest object has more
_SAME_COLOR = 90.0  # RGB distance at which a pixel still has the blob's colour
_WHITE = np.asarray(BACKGROUND, dtype=np.float64)
_PALETTE = np.asarray(list(COLORS.values()), dtype=np.float64)
_WORST, _BEST = 0.64, 0.78  # overlaps that score 0 and 1: malformed and unmistakable


class ShapesDetector(Detector):
    """The judge of the shapes world."""

    Config = ComponentConfig
    classes = SHAPES
    colors = tuple(COLORS)
    label = "GenEval-shapes"

    def detect(self, image: Tensor) -> dict[str, list[Detection]]:
        """Float [3, 48, 48] in [0, 1] -> one detection for each blob, of its most similar shape."""
        pixels = _pixels(image)
        found: dict[str, list[Detection]] = {}
        blobs = label(np.abs(pixels - _WHITE).max(axis=2) > 255 * _FAINT * 0.6, connectivity=1)
        for region in regionprops(blobs):
            if region.area < _SMALLEST:
                continue
            mask = blobs == region.label
            shape, score = _classify(pixels, mask)
            y1, x1, y2, x2 = region.bbox
            found.setdefault(shape, []).append(Detection((x1, y1, x2, y2), score, mask))
        return found

    def color(self, image: Tensor, detection: Detection, class_name: str) -> str:
        """Name the palette colour nearest to the object's median colour."""
        median = _main_color(_pixels(image), detection.mask)
        return self.colors[int(np.square(_PALETTE - median).sum(axis=1).argmin())]

    def self_test(self) -> None:
        """Paint every shape, each in a colour of its own, and look for it.

        Raises:
            TrainingError: a shape or its colour is not found.
        """
        middle = IMAGE_SIZE / 2
        for shape, color in zip(SHAPES, COLORS, strict=True):
            painted = paint([Thing(shape, color, middle, middle, RADIUS)])
            image = torch.from_numpy(painted.copy()).permute(2, 0, 1).float() / 255
            found = select(self.detect(image), "counting")
            seen = [(name, self.color(image, kept[0], name)) for name, kept in found.items()]
            if seen != [(shape, color)]:
                raise TrainingError(
                    f"the detector fails its self-test, so no score is told: a {color} {shape} is to it {seen}"
                )


def _pixels(image: Tensor) -> Pixels:
    """Float [3, H, W] in [0, 1] -> float64 [H, W, 3] in [0, 255]."""
    return np.asarray(image.detach().cpu().permute(1, 2, 0).double().numpy() * 255)


def _main_color(pixels: Pixels, mask: NDArray[np.bool_]) -> Pixels:
    """Median colour of the half of a blob that is farthest from white: its inside."""
    inside = pixels[mask]
    distance = np.abs(inside - _WHITE).sum(axis=1)
    return np.asarray(np.median(inside[distance >= np.median(distance)], axis=0))


def _classify(pixels: Pixels, mask: NDArray[np.bool_]) -> tuple[str, float]:
    color = _main_color(pixels, mask)
    ink = _WHITE - color
    coverage = np.clip((_WHITE - pixels) @ ink / (ink @ ink), 0, 1) * mask
    off = np.abs(pixels - (_WHITE - coverage[..., None] * ink)).max(axis=2)
    pure = 1 - float((off[mask] > _SAME_COLOR).mean())
    known, seen = _silhouettes(), _normalised(coverage).astype(np.float32)
    common = np.minimum(known, seen).sum(axis=(2, 3))
    overlaps = (common / (known.sum(axis=(2, 3)) + seen.sum() - common)).max(axis=1)
    best = int(overlaps.argmax())
    score = np.clip((overlaps[best] - _WORST) / (_BEST - _WORST), 0, 1)
    return SHAPES[best], float(score) * (pure if pure < 0.9 else 1.0)


def _normalised(coverage: Pixels) -> Pixels:
    """Crop what is painted to a square around it and scale it to [_SIDE, _SIDE]."""
    rows, columns = (np.flatnonzero((coverage > _FAINT).any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return np.zeros((_SIDE, _SIDE))
    height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
    side = max(height, width)
    square = np.zeros((side, side))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = coverage[
        rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1
    ]
    return np.asarray(resize(square, (_SIDE, _SIDE), order=1, anti_aliasing=False))


@lru_cache
def _silhouettes() -> NDArray[np.float32]:
    """Float [shapes, views, _SIDE, _SIDE] in [0, 1]: each shape at the world's sizes and at fractions of a pixel."""
    ink = _WHITE - COLORS["blue"]
    known = []
    for shape in SHAPES:
        views = []
        for radius, dx, dy in product(np.arange(6.0, 12.1, 0.5), (0.0, 0.5), (0.0, 0.5)):
            picture = paint([Thing(shape, "blue", 24 + dx, 24 + dy, float(radius))]).astype(np.float64)
            views.append(_normalised(np.clip((_WHITE - picture) @ ink / (ink @ ink), 0, 1)))
        known.append(np.stack(views))
    return np.stack(known).astype(np.float32)
