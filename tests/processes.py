"""Run other processes from a test, and leave none behind: not on a time-out, not when pytest is interrupted."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import psutil


def run(
    command: Sequence[object], *, timeout: float, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    ``subprocess.run`` kills the process that it started and no other; the workers of torchrun, which have sessions of
    their own, would live on.
    """
    arguments = [str(part) for part in command]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=cwd, **pipes) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:  # pytest's own interruption is no Exception
            family = [*psutil.Process(process.pid).children(recursive=True), process]
            for member in family:
                member.kill()
            raise
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)
