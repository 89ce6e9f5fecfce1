"""Saves a run as it is."""

from __future__ import annotations

from pathlib import Path

from maskrl.runtime import checkpoint as checkpoints
from maskrl.runtime.sharding import gathered
from maskrl.training.setup import Setup
from maskrl.training.state import Progress, capture

NOWHERE = ""  # a process that helps to gather a network writes nothing


def save(setup: Setup, progress: Progress, folder: Path, keep: int) -> None:
    """Write a checkpoint into a folder for them, of which ``keep`` stay; every process that takes part calls it.

    Raises:
        TrainingError: the folder cannot be written.
    """
    with setup.hidden():  # a signal may come while an average is evaluated
        tensors, state = capture(setup.state, progress)
        if setup.is_sharded:
            tensors = gathered(tensors, setup.placement)
        if setup.placement.is_main:
            checkpoints.save(folder, progress.update, setup.trained, tensors, state, keep)
        else:
            setup.trained.save(NOWHERE)


def try_saving(setup: Setup, folder: Path) -> None:
    """See that the run can be saved in a folder for checkpoints; every process that takes part calls it.

    Raises:
        TrainingError: it cannot.
    """
    if setup.placement.is_main:
        checkpoints.try_saving(folder, setup.trained)
    else:
        setup.trained.save(NOWHERE)
