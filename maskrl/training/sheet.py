"""A sheet of small images in one PNG: framed, captioned, and marked right or wrong where somebody has judged them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from maskrl import files
from maskrl.pixels import to_bytes

CELL = 144  # pixels: the smallest side at which a caption of a dozen words still fits above an image
GAP, FRAME, FONT_SIZE = 10, 2, 12
INK, PAPER, LINE = (32, 32, 32), (255, 255, 255), (150, 150, 150)
RIGHT, WRONG = (0, 120, 60), (190, 40, 40)

Mark = bool | None  # right, wrong, nobody has judged it
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def save_sheet(
    path: Path,
    captions: Sequence[str],
    rows: Sequence[Tensor],
    labels: Sequence[str] = (),
    marks: Sequence[Sequence[Mark]] = (),
) -> None:
    """Write what :func:`draw_sheet` draws as a PNG, whole or not at all; its folder is made.

    Raises:
        TrainingError: the place cannot be written.
    """
    sheet = draw_sheet(captions, rows, labels, marks)
    with files.whole(path) as unfinished:
        sheet.save(unfinished, format="PNG")


def draw_sheet(
    captions: Sequence[str],
    rows: Sequence[Tensor],
    labels: Sequence[str] = (),
    marks: Sequence[Sequence[Mark]] = (),
) -> Image.Image:
    """Draw a column per caption, and a row per element of ``rows``; every image has a frame.

    Args:
        captions: one per column, written above it.
        rows: Float [at most len(captions), 3, H, W] in [0, 1] each.
        labels: one per row, written to its left; none without.
        marks: one per image, row by row: its frame has the colour of right or wrong, and the word stands below it.
    """
    font = ImageFont.load_default(FONT_SIZE)
    cells = [[_enlarge(image) for image in row] for row in rows]
    width, height = cells[0][0].size
    wrapped = [_wrap(text, font, width) for text in captions]
    top = GAP + max(_height(caption, font) for caption in wrapped) + GAP
    left = GAP + (max(int(font.getlength(label)) for label in labels) + GAP if labels else 0)
    below = GAP + (FONT_SIZE + GAP // 2 if marks else 0)
    places = [
        [(left + column * (width + GAP), top + row * (height + below)) for column in range(len(captions))]
        for row in range(len(rows))
    ]
    sheet = Image.new(
        "RGB", (left + len(captions) * (width + GAP), top + len(rows) * (height + below)), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for (x, _), caption in zip(places[0], wrapped, strict=True):
        draw.multiline_text((x, GAP), caption, INK, font)
    for row, label in enumerate(labels):
        draw.text((GAP, places[row][0][1] + height // 2), label, INK, font, anchor="lm")
    for row, pictures in enumerate(cells):
        for column, picture in enumerate(pictures):
            sheet.paste(picture, places[row][column])
            _frame(draw, places[row][column], picture.size, marks[row][column] if marks else None, font)
    return sheet


def _frame(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], size: tuple[int, int], mark: Mark, font: Font
) -> None:
    """Draw a frame around an image, outside of it: a white one on white paper must be seen and counted."""
    (x, y), (width, height) = place, size
    colour, word = {None: (LINE, ""), True: (RIGHT, "right"), False: (WRONG, "wrong")}[mark]
    draw.rectangle((x - FRAME, y - FRAME, x + width - 1 + FRAME, y + height - 1 + FRAME), None, colour, FRAME)
    draw.text((x, y + height + FRAME + 1), word, colour, font)


def _enlarge(image: Tensor) -> Image.Image:
    """Float [3, H, W] in [0, 1] -> a picture, magnified by a whole number to at least ``CELL`` pixels."""
    picture = Image.fromarray(to_bytes(image.clamp(0, 1)))
    factor = -(-CELL // min(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _wrap(text: str, font: Font, width: int) -> str:
    """Break a text into lines that fit ``width`` pixels; a single word may stick out."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def _height(caption: str, font: Font) -> int:
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    return int(draw.multiline_textbbox((0, 0), caption, font)[3])
