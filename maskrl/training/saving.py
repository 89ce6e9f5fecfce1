"""Saves a run as it is."""

from __future__ import annotations

from pathlib import Path

from maskrl.runtime import checkpoint as checkpoints
from maskrl.training.setup import Setup
from maskrl.training.state import Progress, capture


def save(setup: Setup, progress: Progress, folder: Path, keep: int) -> None:
    """Write a checkpoint into a folder for them, of which ``keep`` stay.

    Raises:
        TrainingError: the folder cannot be written.
    """
    with setup.hidden():  # a signal may come while an average is evaluated
        tensors, state = capture(setup.state, progress)
        checkpoints.save(folder, progress.update, setup.trained, tensors, state, keep)
