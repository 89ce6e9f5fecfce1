"""What FID does to an image before Inception sees it: the numbers of one protocol are not those of another.

Both are known by the public scripts that define them; the two papers' names are those whose numbers rest on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 299
Pixels = NDArray[np.float32]


def t2ibenchmark(image: Image.Image) -> Pixels:
    """Prepare an RGB image of any size: Float [3, 299, 299] in [-1, 1].

    The middle square, Pillow's bicubic filter straight to 299, rounded to 8 bits, 2 x - 1.

    Source: boomb0om/text2image-benchmark, its resizer "clean", which is not clean-fid's; Show-o is measured by it.
    """
    width, height = image.size
    square = _crop(image, (width - min(image.size)) // 2, (height - min(image.size)) // 2)
    pixels = np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float32)
    return 2 * (pixels.transpose(2, 0, 1) / np.float32(255)) - 1


def gigagan(image: Image.Image) -> Pixels:
    """Prepare an RGB image of any size: Float [3, 299, 299] in [-1, 127 / 128].

    The middle square, Lanczos to 256, rounded to 8 bits; then each channel for itself, bicubic to 299 in fp32, not
    rounded but kept in [0, 255], (x - 128) / 128.

    Source: mingukkang/GigaGAN, ``evaluation``, which calls clean-fid in its mode "clean"; Janus is measured by it.
    """
    width, height = image.size
    side = min(image.size)
    square = _crop(image, round((width - side) / 2), round((height - side) / 2))  # to even, as torchvision
    small = np.asarray(square.resize((256, 256), Image.Resampling.LANCZOS), dtype=np.float32)
    channels = (Image.fromarray(small[:, :, c].copy()) for c in range(3))
    resized = [np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for channel in channels]
    return (np.stack(resized).clip(0, 255) - np.float32(128)) / np.float32(128)


PROTOCOLS: dict[str, Callable[[Image.Image], Pixels]] = {"t2ibenchmark": t2ibenchmark, "gigagan": gigagan}


def reduce(image: Image.Image, side: int) -> Image.Image:
    """Make an image ``side`` x ``side`` by Pillow's bicubic filter, rounded to 8 bits, before a protocol has it.

    Source: deepseek-ai/Janus, issue 22: its images of 384 pixels are reduced to 256 before GigaGAN's evaluation.
    """
    return image.resize((side, side), Image.Resampling.BICUBIC)


def _crop(image: Image.Image, left: int, top: int) -> Image.Image:
    side = min(image.size)
    return image.crop((left, top, left + side, top + side))
