"""What a detector promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.geneval import answers
from maskrl.interfaces import Detection, Detector
from maskrl.testing.classes import check_class
from maskrl.testing.promises import pictures, quiet, require, require_listed

Told = dict[str, list[tuple[object, float, bytes]]]  # of each class: boxes, scores and masks
OFFICIAL = "GenEval"  # what the numbers of the official detector are called


def check_detector(component: Detector, image_size: tuple[int, int] = (48, 64)) -> None:
    """Check that what is found on noise and on white has a known class, a box within the image, a score and a mask.

    Args:
        component: on the CPU.
        image_size: (H, W), of different sizes, so that a mask that is turned is seen.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.Detector`.
        TrainingError: it fails its own self-test.
    """
    check_class(type(component))
    with asking(component):
        component.self_test()
        _check_names(component)
        require_listed(component, "'modules'", component.modules)
        images = (pictures(1, image_size)[0], torch.ones(3, *image_size, dtype=torch.float32))
        told = [_check_image(component, image) for image in images]
        again = [_told(answers.detect(component, image)) for image in images]
        require(component, told == again, "what detect finds depends on what it was asked before")


def _check_names(component: Detector) -> None:
    require(component, bool(component.label.strip()), "it has no label for the numbers that rest on it")
    ours = type(component).__module__.partition(".")[0] == "maskrl"
    fine = component.label.strip() != OFFICIAL or ours
    require(component, fine, f"its label is {OFFICIAL!r}, which is the official detector's alone")
    for what in ("classes", "colors"):
        names = getattr(component, what)
        require(
            component,
            isinstance(names, Sequence) and bool(names),
            f"it has no {what!r}, or no sequence of them",
        )
    require(component, len(set(component.classes)) == len(component.classes), "it names a class twice")


def _check_image(component: Detector, image: Tensor) -> Told:
    """Check what is found in an image, and return it."""
    given = image.clone()
    with quiet(component, "detect"):
        objects = answers.detect(component, image)
    for name, found in objects.items():
        require(component, name in component.classes, f"detect found {name!r}, which is not in 'classes'")
        for detection in found:
            _check_detection(component, image, detection)
            _check_color(component, image, detection, name)
    require(component, _told(objects) == _told(answers.detect(component, image)), "detect has noise")
    require(component, torch.equal(image, given), "detect or color changed the image")
    return _told(objects)


def _check_color(component: Detector, image: Tensor, detection: Detection, name: str) -> None:
    with quiet(component, "color"):
        color = answers.color(component, image, detection, name)
    for _ in range(3):
        again = answers.color(component, image, detection, name)
        require(
            component, color == again, f"color has noise: it is {color!r} and {again!r} of the same object"
        )


def _check_detection(component: Detector, image: Tensor, detection: Detection) -> None:
    height, width = image.shape[1:]
    x1, y1, x2, y2 = detection.box
    inside = 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    require(component, inside, f"detect returned a box outside the image: {detection.box}")
    mask = detection.mask
    fine = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (height, width)
    require(component, fine, f"detect returned a mask that is no Bool [{height}, {width}]")


def _told(objects: Mapping[str, Sequence[Detection]]) -> Told:
    return {
        name: [(tuple(one.box), one.score, one.mask.tobytes()) for one in found]
        for name, found in objects.items()
    }
