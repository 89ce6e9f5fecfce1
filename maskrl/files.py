"""Files that are whole or absent, folders that have one writer at a time, and what tells contents apart: their hash.

Whatever is under way ends in ``.unfinished``; a kill leaves at most that, and it is known as ours and cleared away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from maskrl.errors import RecipeError, TrainingError

UNFINISHED = ".unfinished"
LOCK, OWNER = ".maskrl.lock", ".maskrl.owner.json"
_LEFTOVER = re.compile(
    r".+\.unfinished|.+\.[0-9a-f]{8}\.tmp"
)  # the latter was written before there was this module


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Make a file's folder and yield where to write it; it appears under its name once it is whole, or not at all.

    What is there under the name stays until then. Several processes may write the same file at a time: the last one
    stays. The contents are on the disk before the name is.

    Raises:
        TrainingError: the place cannot be written.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
        sync(path.parent)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # what could not be written may be no place to remove from either
            unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, beside where it will be; it appears under its name once it is full, or not at all.

    It takes the place of nothing but an empty folder, also of one that another process made in the meantime.

    Raises:
        TrainingError: the place cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=UNFINISHED, dir=path.parent))
        try:
            yield unfinished
            for one in (unfinished, *unfinished.rglob("*")):  # mkdtemp and safetensors give their owner alone
                one.chmod(0o755 if one.is_dir() else 0o644)
            os.replace(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8, as :func:`whole` does."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_new(wanted: Path) -> Path:
    """Make a folder that was not there: the one wanted, else ``wanted-2``, ``wanted-3``...; no two callers share one.

    Raises:
        TrainingError: it cannot be made.
    """
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise TrainingError(f"cannot make the folder {str(wanted)!r}: {error.strerror or error}") from error
    raise AssertionError("count() does not end")


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Make a folder, and be the only one that writes in it, until the end or until this process dies.

    The lock is the kernel's and goes with the process, however it ends; beside it lies who holds it, for the message.

    Raises:
        TrainingError: another process owns it (the message says which, on which host), or it cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(
            f"{str(folder)!r} is being written by {_owner(folder)}; wait for it, or choose another folder"
        ) from error
    except NotImplementedError as error:  # filelock's, of a file system that has no locks
        raise TrainingError(
            f"the file system of {str(folder)!r} has no locks, without which two commands could write there at once:"
            " choose a folder on another one"
        ) from error
    except OSError as error:
        raise TrainingError(f"cannot write in {str(folder)!r}: {error.strerror or error}") from error
    try:
        write_text(folder / OWNER, json.dumps({"process": os.getpid(), "host": socket.gethostname()}) + "\n")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        return f"process {owner['process']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not said yet who it is


def is_ours(path: Path) -> bool:
    """Tell whether a file is a lock, or what a killed writer of this module left: nothing that anybody would miss."""
    return path.name in (LOCK, OWNER) or _LEFTOVER.fullmatch(path.name) is not None


def is_empty(folder: Path) -> bool:
    """Tell whether nothing but files of :func:`is_ours` is in a folder, or there is no such folder."""
    return not folder.is_dir() or all(is_ours(path) for path in folder.iterdir())


def clear_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder and below; only its owner may. What cannot be removed stays."""
    for path in sorted(folder.rglob("*")):
        if _LEFTOVER.fullmatch(path.name):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sha256_text(text: str) -> str:
    """Return the sha256 of a text in UTF-8, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the sha256 of what a file holds, or of the names and contents of all files below a folder.

    Hidden files (``.DS_Store``, locks) and what a kill left do not count, nor where the file or folder lies, nor when
    it was written.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        names = sorted(
            name
            for found in path.rglob("*")
            if found.is_file() and not _is_aside(name := found.relative_to(path).as_posix())
        )
    except OSError as error:
        raise RecipeError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    return sha256_text("".join(f"{name}\0{sha256(path / name)}\n" for name in names))


def _is_aside(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") or part == "__pycache__" or _LEFTOVER.fullmatch(part) for part in parts)
