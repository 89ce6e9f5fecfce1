"""A reference for FID: statistics of true images, made from a folder."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from maskrl import files
from maskrl.evals.flat import formats
from maskrl.evals.images import ImageFolder
from maskrl.evals.ranks import ShowProgress, run_on_main
from maskrl.evals.shares import gather
from maskrl.evaluations.fid import Fid, Measure
from maskrl.evaluations.frechet import Statistics, write_statistics
from maskrl.grpo.processes import Process
from maskrl.runtime import record


def make_reference(
    images: ImageFolder, measure: Measure, out: Path, *, process: Process, progress: ShowProgress
) -> Statistics:
    """Write the statistics of images as a reference for others; what a kill leaves lies in ``out`` + ``.unfinished``.

    Raises:
        TrainingError: an image is damaged, another process makes it, or ``out`` cannot be written.
    """
    beside = out.with_name(out.name + files.UNFINISHED)
    with ExitStack() as stack:
        run_on_main(process, lambda: stack.enter_context(files.owned(beside)))
        statistics = _make(images, measure, beside, process, progress)
        if process.rank == 0:
            write_statistics(out, statistics)
            shutil.rmtree(beside, ignore_errors=True)
    return statistics


def _make(
    images: ImageFolder, measure: Measure, beside: Path, process: Process, progress: ShowProgress
) -> Statistics:
    settings = {**measure.settings(), "images": len(images.pairs())}
    share = gather(
        images,
        measure.features,
        measure.width,
        beside,
        settings,
        turned=Fid.turns_images,
        process=process,
        progress=progress,
    )
    about = {
        **settings,
        **images.comparable(),
        "formats": formats(images),
        "image_sides": list(share.sides),
        "versions": record.versions([Fid]),
    }
    return Statistics(share.covariance.mean, share.covariance.covariance(), about)
