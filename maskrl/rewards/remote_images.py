"""Images on their way to a reward server and back into a tensor, to the last bit."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from maskrl import pixels
from maskrl.errors import RecipeError
from maskrl.rewards.remote_messages import PngFiles, TensorFile

_TENSOR = "images"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NO_PNG = (
    *(OSError, SyntaxError, ValueError, EOFError, OverflowError, struct.error, zlib.error),
    Image.DecompressionBombError,
)


def pack(images: Tensor) -> PngFiles | TensorFile:
    """Write images, Float [B, 3, H, W] in [0, 1]: as PNG where that keeps every bit, else as the numbers they are."""
    if images.dtype == torch.float32 and torch.equal(pixels.rounded(images), images):
        # constructed, not validated: the validator would take the files for base64 already
        return PngFiles.model_construct(
            format="png", files=[_png(levels) for levels in pixels.to_bytes(images)]
        )
    file = save({_TENSOR: images.detach().cpu().contiguous()})
    return TensorFile.model_construct(format="safetensors", file=file)


def unpack(packed: PngFiles | TensorFile, most: int) -> Tensor:
    """Read what :func:`pack` has written: Float [B, 3, H, W] on the CPU, of the dtype that it had.

    Raises:
        RecipeError: it holds something else, or more than ``most`` bytes of pixels.
    """
    return _read_pngs(packed.files, most) if isinstance(packed, PngFiles) else _read_tensor(packed.file)


def _png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, format="PNG", compress_level=1)
    return file.getvalue()


def _read_pngs(files: list[bytes], most: int) -> Tensor:
    with _reading():
        pictures = [Image.open(io.BytesIO(file), formats=["PNG"]) for file in files]  # their headers alone
    _check_pictures(pictures, most)
    with _reading():
        levels = np.stack([np.asarray(picture) for picture in pictures])
    return torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous().float() / 255


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _NO_PNG as error:
        raise RecipeError(f"images: a file is no PNG that can be read: {error}") from error


def _check_pictures(pictures: Sequence[Image.Image], most: int) -> None:
    sizes, modes = {picture.size for picture in pictures}, {picture.mode for picture in pictures}
    if modes != {"RGB"}:
        raise RecipeError(f"images: a PNG is RGB with 8 bits, not {', '.join(sorted(modes - {'RGB'}))}")
    if len(sizes) > 1:
        raise RecipeError("images: all of a request have one size")
    width, height = sizes.pop()
    if 12 * width * height * len(pictures) > most:
        raise RecipeError(
            f"images: {len(pictures)} of {width} x {height} pixels take more than {most:,} bytes"
        )


def _read_tensor(file: bytes) -> Tensor:
    try:
        images: Tensor | None = load(file).get(_TENSOR)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RecipeError(f"images: are no safetensors file: {error}") from error
    if images is None or images.dtype not in _DTYPES or images.ndim != 4 or images.shape[1] != 3:
        raise RecipeError(f"images: the safetensors file holds no tensor {_TENSOR!r} of floats [B, 3, H, W]")
    if images.numel() == 0:
        raise RecipeError("images: have no pixels")
    return images
