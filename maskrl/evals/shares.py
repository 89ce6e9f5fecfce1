"""How features of many images are distributed, gathered with constant memory, and resumable.

An image's features are computed once, dealt out among the processes. Every process keeps the covariance of its own and
writes it down now and then, with the list of the images in it; what a kill leaves is resumed by any number of
processes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.evals import results
from maskrl.evals.images import ImageFolder
from maskrl.evals.journal import JOURNAL, claim
from maskrl.evals.ranks import ShowProgress, dealt, run_on_all_ranks, run_on_main
from maskrl.evaluations.running_covariance import Array, RunningCovariance
from maskrl.grpo.processes import Process

BATCH = 32  # images whose features are computed together; memory and speed only
SAVED_EVERY = 1024  # images of a process between two writings: what a kill can lose, against 34 MB a writing
Features = Callable[[Sequence[Tensor]], Array]


@dataclass
class Share:
    """The images that a process has had: their covariance, which they are, and their smallest and largest side.

    ``done`` Bool [N] of the folder's images; ``sides`` in pixels, (0, 0) before the first image.
    """

    covariance: RunningCovariance
    done: NDArray[np.bool_]
    sides: tuple[int, int]

    @classmethod
    def none(cls, images: int, width: int) -> Share:
        """Begin with no image."""
        return cls(RunningCovariance.none(width), np.zeros(images, dtype=np.bool_), (0, 0))

    def merge(self, other: Share) -> None:
        """Take in the images of another process."""
        self.covariance.merge(other.covariance)
        self.done |= other.done
        self.sides = _extremes((*self.sides, *other.sides))

    def write(self, path: Path) -> None:
        """Write it down, whole or not at all.

        Raises:
            TrainingError: the place cannot be written.
        """
        known = self.covariance
        with files.whole(path) as unfinished, unfinished.open("wb") as file:
            np.savez(
                file,
                count=known.count,
                mean=known.mean,
                scatter=known.scatter,
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
                known = RunningCovariance(int(file["count"]), file["mean"], file["scatter"])
                smallest, largest = file["sides"].tolist()
                share = cls(known, file["done"], (smallest, largest))
                if not (np.isfinite(known.mean).all() and np.isfinite(known.scatter).all()):
                    raise ValueError("numbers that are not finite")
                if share.done.dtype != np.bool_ or int(share.done.sum()) != known.count:
                    raise ValueError("another number of images than it counts")
                return share
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"{str(path)!r} is damaged; delete it, and its images are judged again"
            ) from error


def gather(
    images: ImageFolder,
    features: Features,
    width: int,
    out: Path,
    settings: Mapping[str, Any],
    *,
    turned: bool,
    process: Process,
    progress: ShowProgress,
) -> Share:
    """Compute the covariance of all images' features; resume what a killed evaluation left.

    Args:
        images: what is looked at.
        features: K images, each Float [3, H, W] in [0, 1] -> Float [K, D].
        width: D.
        out: where the processes write their shares down until all are there.
        settings: what must be the same for going on.
        turned: whether images are turned as their EXIF data say.
        process: this one; every process returns the share of all images.
        progress: called with the images done and their total, as often on every process.

    Raises:
        TrainingError: an image is damaged, or ``out`` cannot be written.
    """
    folder, names = out / JOURNAL, [name for _, name in images.pairs()]
    judged = {results.CONTENTS: images.identity()[results.CONTENTS]}
    run_on_main(process, lambda: claim(folder, {**settings, **judged}))
    missing = np.flatnonzero(~_all(folder, len(names), width).done).tolist()
    process.wait()  # nobody writes before everybody has read
    own = folder / f"{process.rank}.npz"
    share = Share.read(own) if own.exists() else Share.none(len(names), width)
    left, unsaved = len(missing[process.rank :: process.world_size]), 0
    for chunk in dealt(missing, len(names), BATCH, process, progress):
        left, unsaved = left - len(chunk), unsaved + len(chunk)
        is_due = unsaved >= SAVED_EVERY or (unsaved > 0 and left == 0)

        def take(chunk: Sequence[int] = chunk, is_due: bool = is_due) -> None:
            if chunk:
                pixels = [images.read(names[i], turned) for i in chunk]
                share.covariance.add(features(pixels))
                share.done[chunk] = True
                share.sides = _extremes(
                    (*share.sides, *(side for image in pixels for side in image.shape[1:]))
                )
            if is_due:
                share.write(own)

        run_on_all_ranks(process, take)
        unsaved = 0 if is_due else unsaved
    process.wait()  # all is there
    whole = _all(folder, len(names), width)
    process.wait()  # nobody closes before everybody has read
    return whole


def _all(folder: Path, images: int, width: int) -> Share:
    whole = Share.none(images, width)
    for path in sorted(folder.glob("*.npz")):
        whole.merge(Share.read(path))
    return whole


def _extremes(sides: tuple[int, ...]) -> tuple[int, int]:
    known = [side for side in sides if side]
    return (min(known), max(known)) if known else (0, 0)
