"""What a detector promises."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.interfaces import Detection, Detector
from maskrl.testing.classes import check_class
from maskrl.testing.promises import pictures, quiet, require, require_listed


def check_detector(component: Detector, image_size: tuple[int, int] = (64, 64)) -> None:
    """Check that what is found on noise and on white has a known class, a box within the image, a score and a mask.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.Detector`.
        TrainingError: it fails its own self-test.
    """
    check_class(type(component))
    with asking(component):
        component.self_test()
        require(component, bool(component.label.strip()), "it has no label for the numbers that rest on it")
        require(component, bool(component.classes), "it has no 'classes'")
        require(component, len(set(component.classes)) == len(component.classes), "it names a class twice")
        require_listed(component, "'modules'", component.modules)
        for image in (pictures(1, image_size)[0], torch.ones(3, *image_size)):
            _check_image(component, image)


def _check_image(component: Detector, image: Tensor) -> None:
    given = image.clone()
    with quiet(component, "detect"):
        objects = component.detect(image)
    require(component, _told(objects) == _told(component.detect(image)), "detect has noise")
    for name, found in objects.items():
        require(component, name in component.classes, f"detect found {name!r}, which is not in 'classes'")
        for detection in found:
            _check_detection(component, image, detection)
            color = component.color(image, detection, name)
            require(component, color in component.colors, f"color returned {color!r}, not in 'colors'")
    require(component, torch.equal(image, given), "detect or color changed the image")


def _check_detection(component: Detector, image: Tensor, detection: Detection) -> None:
    height, width = image.shape[1:]
    x1, y1, x2, y2 = detection.box
    inside = 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    require(component, inside, f"detect returned a box outside the image: {detection.box}")
    require(component, 0 <= detection.score <= 1, f"detect returned the score {detection.score}")
    mask = detection.mask
    fine = isinstance(mask, np.ndarray) and mask.dtype == np.bool_ and mask.shape == (height, width)
    require(component, fine, f"detect returned a mask that is no Bool [{height}, {width}]")


def _told(objects: dict[str, list[Detection]]) -> dict[str, list[tuple[object, float]]]:
    return {name: [(tuple(one.box), one.score) for one in found] for name, found in objects.items()}
