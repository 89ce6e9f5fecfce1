"""What a detector answers, looked at once, and refused with its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.interfaces import Detection, Detector


def detect(detector: Detector, image: Tensor) -> Mapping[str, Sequence[Detection]]:
    """Ask what is in an image, Float [3, H, W] in [0, 1].

    Raises:
        PluginError: it is no dict of lists of detections with a score in [0, 1].
    """
    with asking(detector):
        found = detector.detect(image)
    if not isinstance(found, Mapping):
        raise refused(detector, f"detect returned {type(found).__name__}, not a dict")
    for name, detections in found.items():
        for one in detections:
            if not isinstance(one, Detection) or not 0 <= one.score <= 1:
                score = getattr(one, "score", type(one).__name__)
                raise refused(
                    detector, f"detect found of {name!r}: {score}, no Detection with a score in [0, 1]"
                )
    return found


def color(detector: Detector, image: Tensor, detection: Detection, class_name: str) -> str:
    """Ask for the colour of what was detected: one of ``colors``.

    Raises:
        PluginError: it is something else.
    """
    with asking(detector):
        found = detector.color(image, detection, class_name)
    if found not in detector.colors:
        raise refused(detector, f"color returned {found!r}, which is not in 'colors'")
    return found
