"""Commands of maskrl that are killed at some moment and begun again, until one is through.

They are forked from a process that has imported everything, so that a start takes no seconds: hundreds can be killed.
"""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from maskrl.runtime.checkpoint import damaged, listed
from maskrl.runtime.metrics import METRICS, read_rows

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
PATIENCE, GRACE = 900, 3  # seconds
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["chaos_imports"])
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
)


@dataclass(frozen=True)
class Start:
    """A command, where it runs, and in how many processes."""

    arguments: Sequence[str]
    folder: Path
    processes: int = 1


@dataclass(frozen=True)
class Kill:
    """When a process is killed: after some seconds, or before its Nth operation on files of its folder."""

    seconds: float | None = None
    operation: int | None = None
    rank: int = 0


@dataclass(frozen=True)
class End:
    """How the processes of a start ended: exit codes, -9 of a killed one; what they said; what they were at."""

    codes: Sequence[int]
    said: str
    moment: str

    @property
    def was_killed(self) -> bool:
        return -signal.SIGKILL in self.codes


def go(start: Start, kill: Kill | None = None) -> End:
    """Run a command to its end, which may be a violent one.

    Where one of several processes is killed the others end by themselves, as launchers expect of them.
    """
    began, port = time.time(), free_port()
    workers = [
        SERVER.Process(target=_work, args=(start, kill, rank, port)) for rank in range(start.processes)
    ]
    for worker in workers:
        worker.start()
    if kill is not None and kill.seconds is not None:
        workers[kill.rank].join(kill.seconds)
        workers[kill.rank].kill()
    _end(workers)
    said = "".join(_said(start.folder, rank).read_text() for rank in range(start.processes))
    return End([worker.exitcode or 0 for worker in workers], said, moment(start.folder / "run", began))


def _end(workers) -> None:
    """Wait for all; where one has ended badly do as torchrun does: SIGTERM to the others, a while later SIGKILL."""
    alive = workers
    while alive:
        assert wait([worker.sentinel for worker in alive], timeout=PATIENCE), "it hangs"
        if any(worker.exitcode for worker in workers):
            for worker in workers:
                worker.terminate()
                worker.join(GRACE)
                worker.kill()
                worker.join()
        alive = [worker for worker in alive if worker.is_alive()]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _said(folder: Path, rank: int) -> Path:
    return folder / f"said.{rank}"


def _work(start: Start, kill: Kill | None, rank: int, port: int) -> None:
    """Be one process of a command."""
    import torch

    from maskrl.cli import main

    handle = os.open(_said(start.folder, rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(handle, stream.fileno())
    os.chdir(start.folder)
    torch.set_num_threads(1)
    if start.processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": start.processes, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
    if kill is not None and kill.operation is not None and kill.rank == rank:
        _die_before(kill.operation, start.folder / "run")
    main(list(start.arguments))


def _die_before(number: int, folder: Path) -> None:
    """Kill this process before its Nth operation on files below a folder."""
    left = number

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if _changes(folder, event, arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _changes(folder: Path, event: str, arguments: tuple[Any, ...]) -> bool:
    """Tell whether an audit event is of an operation that changes something below a folder."""
    if event not in OPERATIONS or (event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        return False
    path = arguments[0]
    return not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(f"{folder}{os.sep}")


def moment(run: Path, began: float) -> str:
    """Say, by what lies there, what a training or an evaluation was at when it was killed."""
    fresh = [path.relative_to(run) for path in run.rglob("*") if _time(path) >= began]
    unfinished = [path for path in fresh if ".unfinished" in path.name]
    if any(path.parts[0] in ("checkpoints", "best") for path in unfinished):
        return "writing or removing a checkpoint"
    if unfinished:
        return "writing another file"
    if Path("run.json") in fresh:
        return _moment_of_training(list(read_rows(run)) if (run / METRICS).exists() else [])
    if any("unfinished" in path.parts for path in fresh):
        return "judging a folder's images"
    return "painting a folder's images" if any(path.suffix == ".png" for path in fresh) else "setting up"


def _moment_of_training(rows: Sequence[Mapping[str, Any]]) -> str:
    if not any(row["kind"] == "update" for row in rows):
        return "evaluating the base"
    if any(row.get("when") == "after" for row in rows):
        return "finishing"
    return "training, or evaluating between updates"


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def kills(chance: random.Random, seconds: float, operations: int, processes: int = 1) -> Iterator[Kill]:
    """Yield kills at random moments: by the clock, and between two operations on files, in turns."""
    while True:
        rank = chance.randrange(processes)
        yield Kill(seconds=chance.uniform(0, seconds), rank=rank)
        yield Kill(operation=chance.randint(1, operations))


def until_through(start: Callable[[], Start], kill: Iterator[Kill], most: int) -> Iterator[End]:
    """Begin a command again and again, killed ``most`` times at most, until it is through; yield every end."""
    for number in count():
        end = go(start(), next(kill) if number < most else None)
        assert "maskrl/cli/__init__.py" not in end.said, end.said  # a traceback of ours
        assert end.was_killed or not any(end.codes), end
        yield end
        if not any(end.codes):
            return


def check_checkpoints(run: Path, least: int) -> int:
    """See that every checkpoint is whole and that none was lost; return the update of the newest."""
    saved = listed(run / "checkpoints")
    for checkpoint in (*saved, *listed(run / "best")):
        assert damaged(checkpoint) is None, f"{checkpoint}: {damaged(checkpoint)}"
    newest = int(saved[-1].name.removeprefix("update_")) if saved else 0
    assert newest >= least, f"a checkpoint was lost: {newest} of {least}"
    return newest
