"""FID: how far the features of many images are from those of true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field
from torch import Tensor

from maskrl import files
from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.evaluations.fid_protocols import PROTOCOLS, Pixels, reduce
from maskrl.evaluations.frechet import (
    Statistics,
    check_reference,
    frechet_distance,
    read_statistics,
)
from maskrl.evaluations.inception import OFFICIAL, Inception, find_weights
from maskrl.evaluations.running_covariance import Array
from maskrl.interfaces import DistributionEvaluation, Published, Row
from maskrl.pixels import to_bytes
from maskrl.types import Prompt

ENOUGH = 30_000
CAUTION = f"FID falls with the number of images: compare equal numbers only; papers have {ENOUGH:,}"


def known_protocol(protocol: str) -> str:
    """Return the name of a protocol.

    Raises:
        RecipeError: there is none of that name.
    """
    if protocol not in PROTOCOLS:
        raise RecipeError(f"FID has no protocol {protocol!r}; choose {' or '.join(PROTOCOLS)}")
    return protocol


class Fid(DistributionEvaluation):
    """Measure how far images are from true ones; papers paint 30,000 captions of MS-COCO, an image each."""

    class Config(ComponentConfig):
        """What images are compared with, and how.

        ``reference`` holds statistics of true images: a .npz with mu and sigma, as pytorch-fid writes them.
        ``protocol`` says how images are resized: t2ibenchmark (Show-o is measured so) or gigagan (Janus).
        ``reduce_to`` reduces images to this side first, bicubic: Janus to 256. ``weights`` are Inception's,
        pytorch-fid's file; fetched if not given.
        """

        reference: str
        protocol: Annotated[str, AfterValidator(known_protocol)] = "t2ibenchmark"
        reduce_to: int | None = Field(default=None, ge=1)
        weights: str | None = None

    paths = ("reference", "weights")
    images_per_prompt = 1
    turns_images = False  # pytorch-fid does not
    larger_is_better = False
    packages = ("pytorch-fid", "torchvision", "pillow")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        check_reference(Path(config.reference))  # before weights are fetched
        self.measured = Measure.build(config.protocol, config.reduce_to, config.weights)
        self.modules, self.width = self.measured.extractor.modules, self.measured.extractor.width
        self.reference = open_reference(Path(config.reference), self.measured)

    def label(self, prompts: Sequence[Prompt], images: int) -> str:
        """Return what the number may be called: FID-30K is of 30,000 images and the official weights alone."""
        if not self.measured.weights_sha256.startswith(OFFICIAL):
            return f"FID-other ({self.measured.protocol})"
        name = "FID-30K" if images == ENOUGH else "FID"
        return f"{name} ({self.measured.protocol})"

    def settings(self) -> Mapping[str, Any]:
        """Name how images are prepared, the network, and the reference, by contents."""
        return {**self.measured.settings(), "reference_sha256": self.reference.sha256}

    def about(self) -> Mapping[str, Any]:
        """Say where the reference lay, and what it says of itself."""
        return {"reference": str(self.reference.path), "reference_about": self.reference.statistics.about}

    def notes(self, rows: Sequence[Row], images: int) -> list[str]:
        """Warn of few images."""
        return [f"N = {images:,}: {CAUTION}"] if images < ENOUGH else []

    def features(self, images: Sequence[Tensor]) -> Array:
        """Return what Inception makes of the images, prepared as the protocol says."""
        return self.measured.features(images)

    def measure(self, mean: Array, covariance: Array) -> dict[str, float]:
        """Return the distance to the reference."""
        return {"fid": frechet_distance(Statistics(mean, covariance, None), self.reference.statistics)}

    @classmethod
    def published(cls, label: str, images: int) -> Sequence[Published]:
        """Return what the paper says. Source: Mask-GRPO (arXiv 2510.13418), table 4.

        A reader must know that the base's FID there is not what the released checkpoint gives: docs/evaluation.md.
        """
        if label != "FID-30K (t2ibenchmark)":
            return ()
        return (Published("Show-o", {"fid": 9.24}), Published("Show-o + Mask-GRPO", {"fid": 8.32}))


@dataclass(frozen=True)
class Measure:
    """How features come about.

    Attributes:
        protocol: a key of ``PROTOCOLS``.
        reduced_to: the side that images are reduced to before the protocol has them; None: they are not.
        extractor: the network.
        weights_sha256: of the network's file.
    """

    protocol: str
    reduced_to: int | None
    extractor: Inception
    weights_sha256: str

    @classmethod
    def build(cls, protocol: str, reduced_to: int | None, weights: str | None) -> Measure:
        """Read the network.

        Raises:
            RecipeError: its weights cannot be had, or pytorch-fid is not installed.
        """
        found = find_weights(None if weights is None else Path(weights))
        return cls(protocol, reduced_to, Inception(found), files.sha256(found))

    @property
    def width(self) -> int:
        """The numbers of a feature."""
        return self.extractor.width

    def settings(self) -> dict[str, Any]:
        """Return what decides the features."""
        return {
            "protocol": self.protocol,
            "reduced_to": self.reduced_to,
            "weights_sha256": self.weights_sha256,
        }

    def features(self, images: Sequence[Tensor]) -> Array:
        """Prepare K images, each Float [3, H, W] in [0, 1], and return their features: Float [K, D]."""
        return self.extractor(np.stack([self._prepare(image) for image in images]))

    def _prepare(self, image: Tensor) -> Pixels:
        picture = Image.fromarray(to_bytes(image))
        if self.reduced_to is not None:
            picture = reduce(picture, self.reduced_to)
        return PROTOCOLS[self.protocol](picture)


@dataclass(frozen=True)
class Reference:
    """What images are compared with: statistics, and the file that holds them."""

    statistics: Statistics
    path: Path
    sha256: str


def open_reference(path: Path, measure: Measure) -> Reference:
    """Read a ``.npz`` with ``mu`` and ``sigma``; one that says nothing of its making is taken as it is.

    Raises:
        RecipeError: it is missing, damaged, of another layout, of other features, or says that it was made otherwise.
    """
    statistics = read_statistics(path, measure.width)
    for key in ("protocol", "weights_sha256"):
        theirs, ours = (statistics.about or {}).get(key), measure.settings()[key]
        if theirs is not None and theirs != ours:
            raise RecipeError(f"the reference {str(path)!r} was made with {key} {theirs!r}, not {ours!r}")
    return Reference(statistics, path, files.sha256(path))
