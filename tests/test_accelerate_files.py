"""The configurations of recipes/accelerate: each read by accelerate, and begun as its first lines say, with a toy."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from chaos import free_port
from processes import run

from maskrl.runtime.checkpoint import listed
from maskrl.runtime.metrics import read_rows

FOLDER = Path(__file__).parents[1] / "recipes" / "accelerate"
FILES = {"one_gpu": (1, 1), "two_gpus": (1, 2), "eight_gpus": (1, 8), "two_nodes": (2, 16)}


def lines(name):
    """The commands in a file's comments."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.findall(r"^#   (.*)$", text, re.MULTILINE)


def command(line, recipe, *changes):
    """A documented line, for this Python, another recipe and two processes at most."""
    words = [str(recipe) if word.startswith("showo_clip") else word for word in shlex.split(line)]
    words = [str(FOLDER / word) if word.endswith(".yaml") else word for word in words]
    assert words[:2] == ["accelerate", "launch"], line
    fewer = ["--num_processes", "2"] if "16" in Path(words[3]).read_text(encoding="utf-8") else []
    return [sys.executable, "-m", "accelerate.commands.launch", *words[2:4], *fewer, *words[4:], *changes]


def test_every_file_is_known_here():
    assert {path.name for path in FOLDER.iterdir()} == {*(f"{name}.yaml" for name in FILES), "slurm.sh"}


@pytest.mark.parametrize("name", FILES)
def test_accelerate_reads_what_the_file_is_called(name):
    nodes, processes = FILES[name]
    read = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (read.num_machines, read.num_processes) == (nodes, processes)
    assert read.distributed_type == (DistributedType.MULTI_GPU if processes > 1 else DistributedType.NO)
    assert read.mixed_precision in (None, "no")  # the recipe's own is what counts
    assert len(lines(f"{name}.yaml")) == nodes
    for line in lines(f"{name}.yaml"):
        assert f"{name}.yaml" in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_gpu", "two_gpus"])
def test_a_node_is_begun_as_the_file_says(toy_recipe, name):
    (line,) = lines(f"{name}.yaml")
    done = run(command(line, toy_recipe, "--run", "run"), timeout=240, cwd=toy_recipe.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"run: {(toy_recipe.parent / 'run').resolve()}\n") == 1
    assert [path.name for path in listed(toy_recipe.parent / "run" / "checkpoints")] == ["update_00002"]


@pytest.mark.slow
def test_two_nodes_are_begun_as_the_file_says(toy_recipe):
    port = ["--main_process_port", str(free_port())]
    begun = []
    for line in lines("two_nodes.yaml"):
        words = command(line.replace("ADDRESS", "127.0.0.1").replace("RUN", "run"), toy_recipe)
        at = words.index("-m", 3)
        begun.append(subprocess.Popen([*words[:at], *port, *words[at:]], cwd=toy_recipe.parent))
    try:
        assert [one.wait(timeout=240) for one in begun] == [0, 0]
    finally:
        for one in begun:
            one.kill()
    assert [path.name for path in listed(toy_recipe.parent / "run" / "checkpoints")] == ["update_00002"]


SLURM = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"',
    "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> queued; fi',
}


def job(folder, *arguments):
    """Begin the script of a job with stand-ins for what SLURM brings."""
    for name, text in SLURM.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    place = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "a",
        "SLURM_NNODES": "1",
        "SLURM_GPUS_PER_NODE": "h100:2",
    }
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    around = {**os.environ, **place, "PATH": path, "MASTER_PORT": str(free_port())}
    return subprocess.Popen(
        [FOLDER / "slurm.sh", *arguments], cwd=folder, env=around, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_job_out_of_time_saves_and_is_queued_again_and_goes_on(toy_recipe):
    folder = toy_recipe.parent
    many = ("--set", "training.updates=100000", "--set", "training.lr_schedule=constant")
    first = job(folder, str(toy_recipe), "run", *many)
    try:
        until = time.monotonic() + 120
        while not (folder / "run" / "metrics.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.1)
        first.send_signal(signal.SIGTERM)  # as --signal=B:TERM@900 does
        said, _ = first.communicate(timeout=120)
        assert first.returncode == 0, said
        assert (folder / "queued").read_text() == "requeue 7\n"
        assert "out of time: 7 is queued again" in said
        (saved,) = listed(folder / "run" / "checkpoints")
        learnt = [row["update"] for row in read_rows(folder / "run") if row["kind"] == "update"]
        assert saved.name == f"update_{learnt[-1]:05d}"
        again = job(folder, str(toy_recipe), "run", "--set", f"training.updates={learnt[-1] + 2}")
        said, _ = again.communicate(timeout=120)
    finally:
        for child in psutil.Process().children(recursive=True):
            if "torch.distributed.run" in " ".join(child.cmdline()):
                child.kill()
    assert again.returncode == 0, said
    assert (folder / "queued").read_text() == "requeue 7\n"
    rows = [row["update"] for row in read_rows(folder / "run") if row["kind"] == "update"]
    assert rows == list(range(1, learnt[-1] + 3))


@pytest.mark.slow
def test_a_job_that_fails_is_not_queued_again(tmp_path):
    ended = job(tmp_path, "no_such_recipe", "run")
    said, _ = ended.communicate(timeout=120)
    assert ended.returncode != 0
    assert not (tmp_path / "queued").exists()
    assert "queued again" not in said
