"""Processes side by side: one for each cell, with its share of the cores and a log of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from maskrl.sweeps.cells import Cell, failure

POLL = 0.1  # seconds
Done = Callable[[Cell, str | None], None]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(cells: Iterable[Cell], jobs: int, begin: Callable[[Cell], None], done: Done) -> None:
    """Train cells, ``jobs`` at a time.

    However this ends, no process is left: each is asked once to stop, saves its run and is waited for; whoever
    interrupts that too ends them at once. If this process is killed, they end as if they had been asked.

    Args:
        cells: in the order in which they begin.
        jobs: how many at a time, each with ``cores // jobs`` threads.
        begin: called as a cell begins.
        done: called as it ends; with the line that says why it has failed, or None.
    """
    waiting = list(cells)
    running: list[_Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                begin(cell)
                running.append(_start(cell, max(1, cores() // jobs)))
            for job in [job for job in running if job.process.poll() is not None]:
                running.remove(job)
                done(job.cell, job.end())
            time.sleep(POLL)
    finally:
        _stop([job.process for job in running])


@dataclass(frozen=True)
class _Job:
    """A cell that is run; ``start`` is where in its log this attempt begins."""

    cell: Cell
    process: subprocess.Popen[bytes]
    start: int

    def end(self) -> str | None:
        """Clear up behind a process that has ended, and return why it has failed; None if it has not."""
        with self.process:
            code = self.process.returncode
        return failure(self.cell.log, self.start, code) if code else None


def _start(cell: Cell, threads: int) -> _Job:
    """Start ``maskrl train`` of a cell, in a session of its own: Ctrl-C reaches this process alone.

    Its standard input is a pipe that it watches: the pipe is closed when this process is gone.
    """
    resume = ["--resume"] if cell.is_begun else []
    of = ["--recipe", str(cell.recipe_file), "--run", str(cell.folder), *resume]
    with cell.log.open("ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "maskrl.cli.cell", "train", *of],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        return _Job(cell, process, start)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    finally:
        for process in processes:
            process.kill()
            with process:  # waits, and closes its pipe
                pass
