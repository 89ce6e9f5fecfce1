"""Is the detector broken? Wrong files, accelerators that compute nonsense and empty answers spoil a score in silence.

A user of the official evaluator reports next to no detections on one kind of accelerator and correct ones on another
(issue 15 of djghosh13/geneval). So a detector is tested before it judges. Drawings show that the network answers, to
what it sees, the same twice and the same as on the CPU; only photographs of known objects show that it answers well.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from torch import Tensor, nn

from maskrl.component import open_path
from maskrl.errors import RecipeError, TrainingError
from maskrl.geneval.coco import CLASSES
from maskrl.geneval.color import ColorClassifier
from maskrl.geneval.instances import normalise
from maskrl.geneval.mask2former import Origin
from maskrl.geneval.scoring import select
from maskrl.interfaces import Detection

SIDE = 256  # pixels of a drawing
_SUREST = 5  # queries that are compared
_SAME = 0.01  # two answers to one picture are nearer to each other
_NEAR_CPU = 0.2  # so are those of an accelerator and of the CPU, TF32 included; nonsense is nearly 1 away
_SEEN = 1e-3  # some probability differs by as much between two pictures

Answer = tuple[Tensor, Tensor]  # probabilities: Float [Q, 81] of the classes, Float [Q, h, w] of the masks
Forward = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class KnownImage:
    """A photograph, uint8 [H, W, 3], and the class that is on it."""

    path: Path
    class_name: str
    pixels: NDArray[np.uint8]


def check_file(origin: Origin) -> None:
    """Compare a checkpoint with the digits at the end of its name, the first of its sha256 by mmdet's habit.

    Raises:
        TrainingError: they differ.
    """
    digits = re.search(r"-([0-9a-f]{8})\.pth$", origin.name)
    if digits and origin.sha256 is not None and not origin.sha256.startswith(digits[1]):
        raise _failed(f"the sha256 of {origin.name!r} begins with {origin.sha256[:8]}: fetch the file again")


def check_network(network: nn.Module, forward: Forward) -> None:
    """Run a network on two drawings.

    Args:
        network: where it will be used.
        forward: its class and mask logits for Float [1, 3, H, W], normalised.

    Raises:
        TrainingError: an answer is not finite, not repeated, the same for both, empty, or not that of the CPU.
    """
    pixels = normalise(_drawing())
    scene, again = _answer(network, forward, pixels), _answer(network, forward, pixels)
    blank = _answer(network, forward, torch.zeros_like(pixels))
    if not all(bool(part.isfinite().all()) for part in (*scene, *blank)):
        raise _failed("its answer to a drawing is not finite")
    if _distance(again, scene) > _SAME:
        raise _failed("it answers the same drawing in two ways")
    if max(float((a - b).abs().max()) for a, b in zip(scene, blank, strict=True)) < _SEEN:
        raise _failed("it answers a drawing as it answers an empty picture")
    if not bool((scene[1] > 0.5).any()):
        raise _failed("it finds no pixel of any object on a drawing")
    device = next(network.parameters()).device
    if device.type != "cpu":
        apart = _distance(scene, _answer(copy.deepcopy(network).cpu(), forward, pixels))
        if apart > _NEAR_CPU:
            raise _failed(f"on {device} it answers a drawing otherwise than on the CPU, {apart:.2f} apart")


def check_colors(classifier: ColorClassifier) -> None:
    """Show a red and a blue square to a colour classifier.

    Raises:
        TrainingError: an answer is not finite, or both are the same.
    """
    whole = Detection((0, 0, SIDE, SIDE), 1.0, np.ones((SIDE, SIDE), dtype=np.bool_))
    red, blue = np.zeros((2, SIDE, SIDE, 3), dtype=np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    answers = [classifier.similarities(square, whole, "car") for square in (red, blue)]
    if not all(bool(answer.isfinite().all()) for answer in answers):
        raise _failed("what it says of colours is not finite")
    if torch.equal(*answers):
        raise _failed("it takes red for blue: its CLIP answers both the same")


def read_known_images(folder: str) -> tuple[KnownImage, ...]:
    """Read a folder of photographs, each named after the class it shows: ``dog.jpg``, ``tv remote_2.png``.

    Raises:
        RecipeError: there is none, one cannot be read, or its name is no class.
    """
    path = Path(open_path(folder))
    files = sorted(file for file in path.glob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise RecipeError(f"{folder!r} holds no photographs (.jpg, .png) for the detector's self-test")
    return tuple(_read_known_image(file) for file in files)


def _read_known_image(path: Path) -> KnownImage:
    name = path.stem.partition("_")[0]
    if name not in CLASSES:
        raise RecipeError(
            f"{path.name!r} is not named after one of the detector's classes, as 'dog_1.jpg' is"
        )
    try:
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise RecipeError(f"the photograph {str(path)!r} cannot be read: {error}") from error
    return KnownImage(path, name, pixels)


def check_known_images(
    known: Sequence[KnownImage], detect: Callable[[Tensor], Mapping[str, list[Detection]]]
) -> None:
    """Look for the class of every photograph.

    Raises:
        TrainingError: one is not found with the confidence that GenEval asks for.
    """
    for image in known:
        tensor = torch.from_numpy(image.pixels).permute(2, 0, 1).float() / 255
        if image.class_name not in select(detect(tensor), "single_object"):
            raise _failed(f"it finds no {image.class_name} on {image.path.name!r}")


def _answer(network: nn.Module, forward: Forward, pixels: Tensor) -> Answer:
    class_logits, mask_logits = forward(network, pixels)
    return class_logits.softmax(dim=-1).cpu(), mask_logits.sigmoid().cpu()


def _distance(answer: Answer, reference: Answer) -> float:
    """How far apart two answers are, in [0, 1], at the queries that are surest of an object in the reference."""
    surest = reference[0][:, :-1].sum(dim=1).topk(min(_SUREST, len(reference[0]))).indices
    classes = (answer[0] - reference[0])[surest].abs().sum(dim=1).mean() / 2
    masks = (answer[1] - reference[1])[surest].abs().mean()
    return float(torch.maximum(classes, masks))


def _drawing() -> NDArray[np.uint8]:
    """Paint a road sign, a ball and a table on a lawn, uint8 [SIDE, SIDE, 3]."""
    picture = Image.new("RGB", (SIDE, SIDE), (135, 190, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 170, SIDE, SIDE), fill=(90, 150, 70))
    draw.rectangle((64, 100, 72, 210), fill=(120, 120, 120))
    draw.regular_polygon((68, 70, 42), 8, rotation=22, fill=(200, 20, 30), outline=(255, 255, 255))
    draw.ellipse((150, 180, 200, 230), fill=(240, 130, 30), outline=(60, 30, 10))
    draw.polygon(((120, 140), (240, 140), (250, 160), (110, 160)), fill=(130, 85, 45))
    return np.array(picture)


def _failed(what: str) -> TrainingError:
    return TrainingError(f"the detector fails its self-test, so no score is told: {what}")
