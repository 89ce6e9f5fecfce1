"""The launchers of docs/scaling.md, line by line, with two processes and a toy."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from processes import run

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
LINES = re.findall(r"^(?:torchrun|python -m accelerate\S*|accelerate) .*$", PAGE.read_text(), re.MULTILINE)


def command(line, recipe, *changes):
    """A documented line, for two processes, another recipe, and this Python."""
    line = line.replace("--nproc-per-node 8", "--standalone --nproc-per-node 2")
    words = shlex.split(line.replace("--num_processes 8", "--num_processes 2"))
    assert "2" in words, f"{line!r} does not say how many processes"
    start = {"torchrun": [sys.executable, "-m", "torch.distributed.run"], "python": [sys.executable]}
    words = [str(recipe) if word == "showo_clip" else word for word in words]
    return [*start[words[0]], *words[1:], *changes]


def test_the_page_names_both_launchers():
    assert [line.split()[0] for line in LINES] == ["torchrun", "python"]


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
def test_a_documented_line_trains_in_two_processes(toy_recipe, line):
    folder = toy_recipe.parent
    done = run(command(line, toy_recipe, "--run", "two"), timeout=240, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"run: {(folder / 'two').resolve()}\n") == 1
    assert (folder / "two" / "checkpoints" / "update_00002").is_dir()
    odd = command(line, toy_recipe, "--run", "odd", "--set", "training.prompts_per_update=3")
    assert "does not divide among 2 processes" in run(odd, timeout=240, cwd=folder).stderr
