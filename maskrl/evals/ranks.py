"""Work that several processes share: dealt out evenly; and what goes wrong on one ends all, and is said once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from maskrl.errors import MaskRLError, RecipeError
from maskrl.grpo.processes import Process, SingleProcess
from maskrl.runtime.record import changed_contents, short

ALONE = SingleProcess()
ShowProgress = Callable[[int, int], None]
T = TypeVar("T")


def silent(done: int, total: int) -> None:
    """Show no progress."""


def dealt(
    missing: Sequence[T], total: int, batch: int, process: Process, progress: ShowProgress
) -> Iterator[Sequence[T]]:
    """Deal out what is still to be done, ``batch`` at a time.

    Args:
        missing: the same on every process.
        total: what there was to be done before any of it was.
        batch: for a process at a time.
        process: this one.
        progress: called after every portion with what is done and the total, over all processes.

    Yields:
        This process's portions: as many as every other's, so that all may wait for each other; the last may be empty.
    """
    mine = missing[process.rank :: process.world_size]
    done = total - len(missing)
    for start in range(0, len(missing[:: process.world_size]), batch):
        yield mine[start : start + batch]
        done = min(done + batch * process.world_size, total)
        progress(done, total)


def check_same(process: Process, read: Mapping[str, Any]) -> None:
    """See that all processes have read the same: each takes its share of the work by number.

    Args:
        process: this one.
        read: by name, plain values: settings, and hashes of contents.

    Raises:
        RecipeError: they have not; said by the main process alone, of the first that differs.
    """
    all_read = process.gather_objects([dict(read)])

    def refuse() -> None:
        for rank, other in enumerate(all_read):
            for name, (where, ours, theirs) in changed_contents(all_read[0], other):
                key = f"{name}.{where}" if where else name
                raise RecipeError(
                    f"process {rank} has read other inputs than process 0: {key} is {short(theirs)} there and"
                    f" {short(ours)} here; give all of them the same recipe and the same files"
                )

    if any(other != all_read[0] for other in all_read):
        run_on_main(process, refuse)


def run_on_all_ranks(process: Process, action: Callable[[], None] | None) -> None:
    """Act on every process that has something to do, and wait for all.

    Raises:
        MaskRLError: the action's; here if it was ours.
        SystemExit: with its exit code, if it was another process's, which says what.
    """
    error = None
    try:
        if action is not None:
            action()
    except MaskRLError as ours:
        error = ours
    codes = process.gather_objects([None if error is None else error.exit_code])
    if error is not None:
        raise error
    failed = [code for code in codes if code is not None]
    if failed:
        raise SystemExit(failed[0])


def run_on_main(process: Process, action: Callable[[], None]) -> None:
    """Act on the main process alone, and wait for it on the others; errors as in :func:`run_on_all_ranks`."""
    run_on_all_ranks(process, action if process.rank == 0 else None)
