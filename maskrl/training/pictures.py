"""Pictures to judge a run by: the same prompts and the same noise, before, during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from maskrl.errors import TrainingError
from maskrl.evals.generate import generate
from maskrl.grpo.config import Sampling
from maskrl.interfaces import MaskedGenerator
from maskrl.types import Prompt, Stream

PER_PROMPT = 4  # images of each prompt in a sample grid
CELL = 144  # pixels: the smallest side at which a caption of a dozen words still fits above an image
GAP, FONT_SIZE = 8, 12
INK, PAPER = (32, 32, 32), (255, 255, 255)


@dataclass(frozen=True)
class Sampler:
    """Paints the run's sample prompts: image i of prompt p always from ``stream.child(p, i)``."""

    prompts: Sequence[str]
    stream: Stream
    num_steps: int
    sampling: Sampling
    batch: int

    def paint(self, generator: MaskedGenerator) -> Tensor:
        """Return Float [len(prompts), PER_PROMPT, 3, H, W] in [0, 1], on the CPU."""
        cells = [(p, i) for p in range(len(self.prompts)) for i in range(PER_PROMPT)]
        prompts = [Prompt(text) for text in self.prompts]
        painted = generate(
            generator,
            [prompts[p] for p, _ in cells],
            [self.stream.child(p, i) for p, i in cells],
            self.num_steps,
            self.sampling,
            self.sampling.guidance_eval,
            self.batch,
        )
        images = torch.cat([images for _, images in painted])
        return images.reshape(len(prompts), PER_PROMPT, *images.shape[1:])


def save_grid(path: Path, prompts: Sequence[str], rows: Sequence[Tensor], labels: Sequence[str] = ()) -> None:
    """Write a PNG: a column per prompt, with its text above, and a row per element of ``rows``.

    Args:
        path: of the PNG; its folder is made.
        prompts: one per column.
        rows: Float [len(prompts), 3, H, W] in [0, 1] each.
        labels: one per row, written to its left; none without.

    Raises:
        TrainingError: the place cannot be written.
    """
    font = ImageFont.load_default(FONT_SIZE)
    cells = [[_enlarge(image) for image in row] for row in rows]
    width, height = cells[0][0].size
    captions = [_wrap(text, font, width) for text in prompts]
    top = GAP + max(_height(caption, font) for caption in captions) + GAP
    left = GAP + (max(int(font.getlength(label)) for label in labels) + GAP if labels else 0)
    size = (left + len(prompts) * (width + GAP), top + len(rows) * (height + GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, caption in enumerate(captions):
        draw.multiline_text((left + column * (width + GAP), GAP), caption, INK, font)
        for row, images in enumerate(cells):
            sheet.paste(images[column], (left + column * (width + GAP), top + row * (height + GAP)))
    for row, label in enumerate(labels):
        draw.text((GAP, top + row * (height + GAP) + height // 2), label, INK, font, anchor="lm")
    _save(sheet, path)


def save_samples(path: Path, prompts: Sequence[str], images: Tensor) -> None:
    """Write what :meth:`Sampler.paint` returned, a row per noise."""
    save_grid(path, prompts, list(images.transpose(0, 1)))


def save_before_after(path: Path, prompts: Sequence[str], before: Tensor, after: Tensor) -> None:
    """Write the first image of every prompt, before and after training, from the same noise."""
    save_grid(path, prompts, [before[:, 0], after[:, 0]], ["before", "after"])


def _enlarge(image: Tensor) -> Image.Image:
    """Float [3, H, W] in [0, 1] -> a picture, magnified by a whole number to at least ``CELL`` pixels."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    picture = Image.fromarray(pixels.numpy())
    factor = -(-CELL // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Break a text into lines that fit ``width`` pixels; a single word may stick out."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _height(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(draw.multiline_textbbox((0, 0), caption, font)[3])


def _save(sheet: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
