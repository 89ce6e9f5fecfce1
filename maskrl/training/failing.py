"""What becomes of a run whose update fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from maskrl.errors import MaskRLError, TrainingError
from maskrl.runtime.folder import note_end
from maskrl.training.setup import Setup
from maskrl.training.state import Progress


@contextmanager
def rescuing(setup: Setup, rescue: Callable[[], None]) -> Iterator[None]:
    """Call ``rescue`` if what is inside fails before it has moved a weight: then all is as it was before the update.

    The filter's history is put back first. After a step of the optimizer there is nothing sound to save: with several
    steps an update, half of it would be learnt. Nor is there where batches are painted ahead and the next one is begun.
    """
    back, steps = setup.rollouts.mark(), 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    hook = setup.learner.optimizer.register_step_post_hook(count)
    try:
        yield
    except BaseException:
        if steps == 0 and back():
            rescue()
        raise
    finally:
        hook.remove()


@contextmanager
def remembering(run: Path, is_main: bool) -> Iterator[None]:
    """Write an error that ends a run into its record; ``is_main``: whether this process writes."""
    try:
        yield
    except MaskRLError as error:
        if is_main:
            with suppress(MaskRLError):  # a disk that is full is what the error says already
                note_end(run, str(error))
        raise


@contextmanager
def memory(progress: Progress) -> Iterator[None]:
    """Say what to change when the device is full, from the cheapest to the dearest.

    Raises:
        TrainingError: the device is full.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise TrainingError(
            f"update {progress.update}: the device is out of memory ({reason}); lower training.micro_batch, score_batch"
            " or rollout_batch, or eval.NAME.batch, set activation_checkpointing or offload, or train adapters;"
            " 'maskrl plan' shows what a recipe needs"
        ) from error
