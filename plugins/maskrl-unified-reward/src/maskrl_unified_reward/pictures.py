"""Pictures in the sizes that the network reads: whole patches, and no fewer and no more than it learnt from.

Source: qwen-vl-utils 0.0.8, through which the published code hands a picture to transformers' processor. Pillow
resizes, so that the processor, whose limits are the same, leaves the size alone.
"""

from __future__ import annotations

from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from maskrl.pixels import to_bytes

PATCH = 28  # pixels, of one token's side
LEAST, MOST = 4 * PATCH**2, 16384 * PATCH**2  # pixels of a picture


def prepare(images: Tensor) -> list[Image.Image]:
    """Round to 8 bits and resize, bicubic: Float [N, 3, H, W] in [0, 1] -> N pictures."""
    height, width = smart_resize(*images.shape[-2:], factor=PATCH, min_pixels=LEAST, max_pixels=MOST)
    return [
        Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC)
        for levels in to_bytes(images)
    ]
