"""Whole files, owned folders, hashes of contents."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maskrl import files
from maskrl.errors import RecipeError, TrainingError

HOLD = """
import sys, time
from pathlib import Path
from maskrl import files
with files.owned(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """Own a folder in another process, which is killed at the end."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def write_half(path: Path) -> None:
    with files.whole(path) as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "numbers.json"
    files.write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_said_in_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write '.*numbers\.json': File exists"):
        files.write_text(tmp_path / "file" / "numbers.json", "new")


def test_a_folder_has_one_owner_who_is_named(tmp_path):
    with held(tmp_path / "run") as process:
        message = rf"is being written by process {process.pid} on \S+; wait for it"
        with pytest.raises(TrainingError, match=message), files.owned(tmp_path / "run"):
            pass


def test_a_file_system_without_locks_is_said_in_a_line(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with (
        pytest.raises(TrainingError, match=r"has no locks.*: choose a folder on another one$"),
        files.owned(tmp_path),
    ):
        pass


def test_a_lock_goes_with_a_killed_process(tmp_path):
    with held(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
    with files.owned(tmp_path):
        assert json.loads((tmp_path / files.OWNER).read_text())["process"] == os.getpid()
    assert files.is_empty(tmp_path)


def test_names_never_collide(tmp_path):
    made = [files.make_new(tmp_path / "runs" / "toy") for _ in range(3)]
    assert [folder.name for folder in made] == ["toy", "toy-2", "toy-3"]
    assert all(folder.is_dir() for folder in made)


def test_only_our_own_leftovers_are_cleared(tmp_path):
    for name in ("recipe.toml.0123abcd.unfinished", "settings.json.0123abcd.tmp", "notes.tmp", "recipe.toml"):
        (tmp_path / name).write_text("")
    (tmp_path / "update_00002.unfinished").mkdir()
    (tmp_path / "update_00002.unfinished" / "weights").write_text("")
    files.clear_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.tmp", "recipe.toml"]


def test_a_folder_with_nothing_but_leftovers_is_empty(tmp_path):
    assert files.is_empty(tmp_path / "absent")
    (tmp_path / "recipe.toml.0123abcd.unfinished").write_text("")
    assert files.is_empty(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    assert not files.is_empty(tmp_path)


def test_a_hash_is_of_names_and_contents_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "weights").write_text("1")
    (tmp_path / "b" / ".DS_Store").write_text("")
    os.utime(tmp_path / "b" / "inner" / "weights", (0, 0))
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")
    (tmp_path / "b" / "inner" / "weights").write_text("2")
    assert files.sha256(tmp_path / "a") != files.sha256(tmp_path / "b")
    (tmp_path / "b" / "inner" / "weights").rename(tmp_path / "b" / "inner" / "other")
    (tmp_path / "b" / "inner" / "other").write_text("1")
    assert files.sha256(tmp_path / "a") != files.sha256(tmp_path / "b")


def test_what_cannot_be_hashed_is_said(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read '.*absent': No such file"):
        files.sha256(tmp_path / "absent")
