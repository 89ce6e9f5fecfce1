"""What finds objects in images, and what lists prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from maskrl.component import Component
from maskrl.types import Prompt


@dataclass(frozen=True)
class Detection:
    """One object found in an image: ``box`` (x1, y1, x2, y2) in pixels, ``score`` in [0, 1], ``mask`` Bool [H, W]."""

    box: tuple[float, float, float, float]
    score: float
    mask: NDArray[np.bool_]


class Detector(Component):
    """Finds objects and names colours for GenEval's rules.

    Attributes:
        classes: what it can find, singular, as written in prompts' metadata.
        colors: what ``color`` can answer.
        modules: its networks, so that placement can move them.
        label: what numbers are called that rest on it; "GenEval" is the official detector's alone.
    """

    classes: Sequence[str]
    colors: Sequence[str]
    modules: Sequence[nn.Module] = ()
    attributes = {"modules": [nn.Module]}  # noqa: RUF012  # declared in Component
    label: str = "GenEval-custom"

    @abstractmethod
    def detect(self, image: Tensor) -> dict[str, list[Detection]]:
        """Float [3, H, W] in [0, 1] -> every candidate by class, in any order, before any threshold."""

    @abstractmethod
    def color(self, image: Tensor, detection: Detection, class_name: str) -> str:
        """Name the colour of one detected object: one of ``colors``."""

    def self_test(self) -> None:  # not abstract: not every detector can be broken
        """Test whether it works here and now; every evaluation begins with it. By default there is no test.

        Raises:
            TrainingError: it does not; the message names what failed.
        """


class PromptSet(Component):
    """A named list of prompts that a package ships."""

    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """Return the prompts, each with a text, in an order that is the same for every instance."""
