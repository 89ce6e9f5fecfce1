"""FID: features of many images as a normal distribution, and its distance to a reference. Constant memory, resumable.

An image's features are computed once, dealt out among the processes. Every process keeps the moments of its own and
writes them down now and then, with the list of the images in them; what a kill leaves is gone on with by any number of
processes.
"""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.fid_protocols import PROTOCOLS, Pixels, reduce
from maskrl.evals.frechet import Statistics, frechet_distance, read_statistics, write_statistics
from maskrl.evals.inception import OFFICIAL
from maskrl.evals.journal import JOURNAL, claim, close
from maskrl.evals.moments import Array, Moments
from maskrl.evals.pictures import Pictures
from maskrl.evals.results import Number, Result
from maskrl.evals.together import Progress, dealt, on_main, together
from maskrl.grpo.processes import Process
from maskrl.runtime import record

ENOUGH = 30_000
BATCH = 32  # images that Inception sees together; memory and speed only
SAVED_EVERY = 1024  # images of a process between two writings: what a kill can lose, against 34 MB a writing
CAUTION = f"FID falls with the number of images: compare equal numbers only; papers have {ENOUGH:,}"


class Extractor(Protocol):
    """What turns prepared images into features."""

    @property
    def width(self) -> int:
        """D, the numbers of a feature."""

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""

    def __call__(self, pixels: Pixels) -> Array:
        """Float [B, 3, 299, 299] -> Float [B, D]."""


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
    extractor: Extractor
    weights_sha256: str

    def settings(self) -> dict[str, Any]:
        """Return what decides the numbers."""
        return {
            "protocol": self.protocol,
            "reduced_to": self.reduced_to,
            "weights_sha256": self.weights_sha256,
        }

    def prepare(self, pictures: Pictures, name: str) -> tuple[Pixels, tuple[int, int]]:
        """Return an image as the network sees it, and its width and height in the file."""
        image = pictures.open(name)
        size = image.size
        if self.reduced_to is not None:
            image = reduce(image, self.reduced_to)
        return PROTOCOLS[self.protocol](image), size


def check_protocol(name: str) -> None:
    """Refuse a protocol that is none.

    Raises:
        RecipeError: there is none of that name.
    """
    if name not in PROTOCOLS:
        raise RecipeError(f"FID has no protocol {name!r}; choose {' or '.join(PROTOCOLS)}")


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
    statistics = read_statistics(path, measure.extractor.width)
    for key in ("protocol", "weights_sha256"):
        theirs, ours = (statistics.about or {}).get(key), measure.settings()[key]
        if theirs is not None and theirs != ours:
            raise RecipeError(f"the reference {str(path)!r} was made with {key} {theirs!r}, not {ours!r}")
    return Reference(statistics, path, files.sha256(path))


@dataclass
class Share:
    """The images that a process has had: their moments, which they are, and their smallest and largest side.

    ``done`` Bool [N] of the folder's images; ``sides`` in pixels, (0, 0) before the first image.
    """

    moments: Moments
    done: NDArray[np.bool_]
    sides: tuple[int, int]

    @classmethod
    def none(cls, images: int, width: int) -> Share:
        """Begin with no image."""
        return cls(Moments.none(width), np.zeros(images, dtype=np.bool_), (0, 0))

    def merge(self, other: Share) -> None:
        """Take in the images of another process."""
        self.moments.merge(other.moments)
        self.done |= other.done
        self.sides = _extremes((*self.sides, *other.sides))

    def write(self, path: Path) -> None:
        """Write it down, whole or not at all.

        Raises:
            TrainingError: the place cannot be written.
        """
        moments = self.moments
        with files.whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                count=moments.count,
                mean=moments.mean,
                scatter=moments.scatter,
                sides=self.sides,
                done=self.done,
            )

    @classmethod
    def read(cls, path: Path) -> Share:
        """Read what :meth:`write` wrote.

        Raises:
            TrainingError: it is damaged.
        """
        try:
            with path.open("rb") as stream, np.load(stream) as file:
                moments = Moments(int(file["count"]), file["mean"], file["scatter"])
                smallest, largest = file["sides"].tolist()
                share = cls(moments, file["done"], (smallest, largest))
                if not (np.isfinite(moments.mean).all() and np.isfinite(moments.scatter).all()):
                    raise ValueError("numbers that are not finite")
                if share.done.dtype != np.bool_ or int(share.done.sum()) != moments.count:
                    raise ValueError("another number of images than it counts")
                return share
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"{str(path)!r} is damaged; delete it, and its images are judged again"
            ) from error


def gather(
    pictures: Pictures,
    measure: Measure,
    out: Path,
    settings: Mapping[str, Any],
    *,
    process: Process,
    progress: Progress,
) -> Share:
    """Compute the moments of all images; go on where a killed evaluation stopped.

    Args:
        pictures: what is looked at.
        measure: how.
        out: where the processes write their moments down until all are there.
        settings: what must be the same for going on.
        process: this one; every process returns the moments of all images.
        progress: called with the images done and their total, as often on every process.

    Raises:
        TrainingError: an image is damaged, or ``out`` cannot be written.
    """
    folder = out / JOURNAL
    judged = {results.CONTENTS: pictures.identity()[results.CONTENTS]}
    on_main(process, lambda: claim(folder, {**settings, **judged}))
    total, width = len(pictures.names), measure.extractor.width
    missing = np.flatnonzero(~_all(folder, total, width).done).tolist()
    process.wait()  # nobody writes before everybody has read
    own = folder / f"{process.rank}.npz"
    share = Share.read(own) if own.exists() else Share.none(total, width)
    left, unsaved = len(missing[process.rank :: process.world_size]), 0
    for chunk in dealt(missing, total, BATCH, process, progress):
        left, unsaved = left - len(chunk), unsaved + len(chunk)
        is_due = unsaved >= SAVED_EVERY or (unsaved > 0 and left == 0)

        def look(chunk: Sequence[int] = chunk, is_due: bool = is_due) -> None:
            if chunk:
                _add(share, chunk, pictures, measure)
            if is_due:
                share.write(own)

        together(process, look)
        unsaved = 0 if is_due else unsaved
    process.wait()  # all is there
    whole = _all(folder, total, width)
    process.wait()  # nobody closes before everybody has read
    return whole


def _add(share: Share, chunk: Sequence[int], pictures: Pictures, measure: Measure) -> None:
    prepared, sizes = zip(*(measure.prepare(pictures, pictures.names[i]) for i in chunk), strict=True)
    features = measure.extractor(np.stack(prepared))
    if not np.isfinite(features).all():
        raise TrainingError(f"Inception gave features that are not finite for one of {len(chunk)} images")
    share.moments.add(features)
    share.done[chunk] = True
    share.sides = _extremes((*share.sides, *(side for size in sizes for side in size)))


def _all(folder: Path, images: int, width: int) -> Share:
    whole = Share.none(images, width)
    for path in sorted(folder.glob("*.npz")):
        whole.merge(Share.read(path))
    return whole


def _extremes(sides: tuple[int, ...]) -> tuple[int, int]:
    known = [side for side in sides if side]
    return (min(known), max(known)) if known else (0, 0)


def evaluate(
    pictures: Pictures,
    measure: Measure,
    reference: Reference,
    out: Path,
    provenance: Mapping[str, Any],
    *,
    process: Process,
    progress: Progress,
) -> Result:
    """Measure the FID of images against a reference, and write ``summary.json``.

    Args:
        pictures: what is judged.
        measure: by which protocol and network.
        reference: of the same protocol and network.
        out: a folder for the results; a killed evaluation is gone on with.
        provenance: what the caller knows of the images' origin.
        process: this one; the main process writes.
        progress: called with the images done and their total.

    Raises:
        RecipeError: ``out`` holds results of other settings.
        TrainingError: an image is damaged, or ``out`` cannot be written.
    """
    settings = {
        **measure.settings(),
        "reference_sha256": reference.sha256,
        "images": len(pictures.names),
        **pictures.comparable,
    }
    judged = pictures.identity()
    on_main(process, lambda: results.refuse_others(out, settings, judged))
    share = gather(pictures, measure, out, settings, process=process, progress=progress)
    distance = frechet_distance(_statistics(share, None), reference.statistics)
    result = Result(
        evaluation="fid",
        label=label(measure, share.moments.count),
        numbers={"fid": Number(distance, math.nan)},
        images=share.moments.count,
        settings=settings,
        provenance={
            **provenance,
            "generator": pictures.generator,
            "judged": judged,
            "image_sides": list(share.sides),
            "reference": str(reference.path),
            "reference_about": reference.statistics.about,
            "caution": CAUTION if share.moments.count < ENOUGH else None,
        },
        versions=_versions(),
    )
    if process.rank == 0:
        results.write_result(result, out)
        close(out)
    return result


def make_reference(
    pictures: Pictures, measure: Measure, out: Path, *, process: Process, progress: Progress
) -> Statistics:
    """Write the statistics of images as a reference for others; what a kill leaves lies in ``out`` + ``.unfinished``.

    Raises:
        TrainingError: an image is damaged, another process makes it, or ``out`` cannot be written.
    """
    beside = out.with_name(out.name + files.UNFINISHED)
    with ExitStack() as stack:
        on_main(process, lambda: stack.enter_context(files.owned(beside)))
        statistics = _make(pictures, measure, beside, process, progress)
        if process.rank == 0:
            write_statistics(out, statistics)
            shutil.rmtree(beside, ignore_errors=True)
    return statistics


def _make(
    pictures: Pictures, measure: Measure, beside: Path, process: Process, progress: Progress
) -> Statistics:
    settings = {**measure.settings(), "images": len(pictures.names)}
    share = gather(pictures, measure, beside, settings, process=process, progress=progress)
    about = {**settings, **pictures.comparable, "image_sides": list(share.sides), "versions": _versions()}
    return _statistics(share, about)


def label(measure: Measure, images: int) -> str:
    """Return what the number may be called: FID-30K is that of 30,000 images and the official weights alone."""
    if not measure.weights_sha256.startswith(OFFICIAL):
        return f"FID-other ({measure.protocol})"
    return f"FID-30K ({measure.protocol})" if images == ENOUGH else f"FID ({measure.protocol})"


def _statistics(share: Share, about: Mapping[str, Any] | None) -> Statistics:
    return Statistics(share.moments.mean, share.moments.covariance(), about)


def _versions() -> dict[str, str]:
    return record.versions() | {name: version(name) for name in ("pytorch-fid", "torchvision", "pillow")}
