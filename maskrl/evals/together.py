"""What goes wrong on one of several processes ends all of them, and is said once."""

from __future__ import annotations

from collections.abc import Callable

from maskrl.errors import MaskRLError
from maskrl.grpo.parts import Process


def together(process: Process, action: Callable[[], None] | None) -> None:
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


def on_main(process: Process, action: Callable[[], None]) -> None:
    """Act on the main process alone, and wait for it on the others; errors as in :func:`together`."""
    together(process, action if process.rank == 0 else None)
