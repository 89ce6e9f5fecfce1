"""What measures finished images, whoever made them: a benchmark, or a mean of a reward.

A class says what one image, or all of them, come to. The engine (``maskrl.evals``) paints the images or opens them,
deals them out among processes, goes on after a kill, and writes and compares the results; it knows no evaluation.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from maskrl.component import Component
from maskrl.identity import identity
from maskrl.types import Prompt

Row = Mapping[str, Any]  # what is known of an image: JSON can hold it


@dataclass(frozen=True)
class Number:
    """A mean and its standard error, NaN where there is none."""

    mean: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    se: Annotated[float, Field(strict=True)]


@dataclass(frozen=True)
class Published:
    """A row of a paper: some of an evaluation's numbers, by their names."""

    name: str
    numbers: Mapping[str, float]


class Evaluation(Component):
    """Measures images. Implement :class:`ImageEvaluation`, or :class:`DistributionEvaluation`.

    Attributes:
        modules: its networks, so that placement can move them.
        takes: settings that, left out, are the recipe's section of that name (``reward``).
        images_per_prompt: how many are usual; None: as many as the recipe's other evaluations have.
        needs_prompts: whether it must know of what an image was made.
        turns_images: whether an image file is turned as its EXIF data say before it is judged.
        larger_is_better: of its numbers.
        packages: whose versions can change its numbers, beside those that every result names.
    """

    attributes: ClassVar[Mapping[str, Any]] = {"modules": [nn.Module]}
    modules: Sequence[nn.Module] = ()
    takes: ClassVar[tuple[str, ...]] = ()
    images_per_prompt: ClassVar[int | None] = None
    needs_prompts: ClassVar[bool] = True
    turns_images: ClassVar[bool] = True
    larger_is_better: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def prompts(cls) -> Sequence[Prompt]:
        """Return what is painted where nobody names prompts; by default nothing: somebody must."""
        return ()

    @classmethod
    def wants(cls, prompt: Prompt) -> bool:
        """Tell whether it is about a prompt; the others, and their images, are left out.

        Raises:
            RecipeError: its metadata are malformed.
        """
        return True

    @classmethod
    def task(cls, prompt: Prompt) -> str:
        """Name the kind of a prompt: an evaluation of fewer prompts (``subset``) takes as many of each kind."""
        return ""

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that it can be done, before anything is painted for it; by default every prompt will do.

        Raises:
            RecipeError: a prompt cannot be judged.
            TrainingError: it does not work here and now.
        """

    @abstractmethod
    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Return what its numbers may be called, given what they are of; prompts may be unknown, and then empty."""

    def settings(self) -> Mapping[str, Any]:
        """Return what must be equal in two results that are compared: plain values, files by their contents.

        The engine adds the prompts and how images were painted. By default all of its ``Config``.
        """
        return {"evaluation": identity(self)}

    def about(self) -> Mapping[str, Any]:
        """Return what else a reader of a result should know, as JSON can hold it."""
        return {}

    def notes(self, rows: Sequence[Row], images: int) -> Sequence[str]:
        """Return lines for a reader of the numbers; ``rows`` are those of :meth:`ImageEvaluation.judge`, if any."""
        return ()

    @classmethod
    def published(cls, label: str, images: int) -> Sequence[Published]:
        """Return what papers report under this label, of so many images."""
        return ()


class ImageEvaluation(Evaluation):
    """Judges image by image: a row each, and means over rows."""

    @abstractmethod
    def judge(self, images: Sequence[Tensor], prompts: Sequence[Prompt]) -> Sequence[Row]:
        """Judge K images, each Float [3, H, W] in [0, 1] of any size, with a prompt each: K rows.

        A row depends on its own image and prompt alone. ``filename`` is the engine's key.
        """

    @classmethod
    def values(cls, row: Row) -> Mapping[str, float]:
        """Return what an image adds to the means that it is in, by their names; by default every number of its row."""
        return {name: float(value) for name, value in row.items() if isinstance(value, int | float)}

    @classmethod
    def combine(cls, means: Mapping[str, Number]) -> Mapping[str, Number]:
        """Return the numbers to report, the headline first: the means, and sums of them; by default the means.

        Args:
            means: over images, with standard errors over prompts; or differences of two results' means, so that
                everything must be linear in them.
        """
        return means

    def others(self, rows: Sequence[Row]) -> Mapping[str, float]:
        """Return numbers that are no means over images, and have no standard error; by default none."""
        return {}

    @classmethod
    def is_right(cls, row: Row) -> bool | None:
        """Tell whether an image shows what it should, for pictures of a run; None: that is not known."""
        return None

    def companions(self, prompts: Sequence[Prompt]) -> Sequence[int] | None:
        """Name for each of all images, by its prompt, another one that it is judged beside; by default none.

        Then :meth:`judge_beside` finishes the rows, and an evaluation is of images in a folder only.
        """
        return None

    def judge_beside(
        self, rows: Sequence[Row], prompts: Sequence[Prompt], companions: Sequence[Tensor]
    ) -> Sequence[Row]:
        """Finish K rows of :meth:`judge`, each with another image, Float [3, H, W]; by default they are finished."""
        return rows

    def table(self, rows: Sequence[Row]) -> Sequence[Sequence[str]]:
        """Return a table for a reader, its headings first; by default none, and the numbers are shown."""
        return ()

    def details(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """Return more than the numbers, which is written beside them as JSON; by default nothing."""
        return {}


class DistributionEvaluation(Evaluation):
    """Compares how features of many images are distributed: their mean and covariance, however many they are.

    Attributes:
        width: D, the numbers of a feature.
    """

    needs_prompts = False
    attributes: ClassVar[Mapping[str, Any]] = {"modules": [nn.Module], "width": int}
    width: int

    @abstractmethod
    def features(self, images: Sequence[Tensor]) -> NDArray[np.float64]:
        """Compute the features of K images, each Float [3, H, W] in [0, 1] of any size: Float [K, D], finite."""

    @abstractmethod
    def measure(self, mean: NDArray[np.float64], covariance: NDArray[np.float64]) -> Mapping[str, float]:
        """Return the numbers, the headline first, of features with this mean, Float [D], and covariance [D, D]."""
