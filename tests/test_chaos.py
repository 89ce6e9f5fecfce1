"""Runs and evaluations that are killed at random moments, again and again, end as if nothing had happened."""

import json
import random
import time
from collections import Counter
from functools import partial

import pytest
from chaos import Start, check_checkpoints, go, kills, until_through
from test_training import RECIPE, comparable
from toy_run import geneval_prompts

from maskrl.runtime.checkpoint import STATE, TENSORS, listed

MORE = """
[ema]
decay = 0.5
[watch]
every = 1
rewards = { gold = "clip" }
[early_stop]
reward = "gold"
patience = 100
"""
SETTINGS = (
    "generator.double=true",
    "training.prompts_per_update=4",
    "checkpoint.every=1",
    "training.updates=6",
)
CLOCK = {"seconds", "rows_sha256"}  # of rows with seconds in them


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Make a folder with a recipe and what it reads, for a run or an evaluation called ``run``."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        toy = RECIPE.partition('name = "')[2].partition(":")[0]
        more = MORE.replace('"clip"', f'"{toy}:Red"')
        (folder / "recipe.toml").write_text(
            RECIPE.replace("tensorboard = false", "tensorboard = true") + more
        )
        (folder / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(7)))
        (folder / "geneval.jsonl").write_text(geneval_prompts())
        return folder

    return make


def training(folder, processes, more=()):
    """Begin a run, or resume the one that is there."""
    new = ("--recipe", "recipe.toml", *(part for one in (*SETTINGS, *more) for part in ("--set", one)))
    how = ("--resume",) if (folder / "run" / "recipe.toml").exists() else new
    return Start(("train", "--run", "run", *how), folder, processes)


def evaluation(folder, processes):
    more = ("--set", "generator.double=true", "--set", "eval.geneval.batch=2")
    return Start(("eval", "geneval", "--recipe", "recipe.toml", "--out", "run", *more), folder, processes)


def left_by_training(folder):
    """All that a run leaves, apart from seconds."""
    run = folder / "run"
    last = listed(run / "checkpoints")[-1]
    state = json.loads((last / STATE).read_text())
    results = sorted(path.relative_to(run) for path in run.glob("eval/*/*/results.jsonl"))
    return {
        "rows": comparable(run),
        "update": last.name,
        "kept": [path.name for path in (*listed(run / "checkpoints"), *listed(run / "best"))],
        "weights": (last / TENSORS).read_bytes(),
        "generator": (last / "generator" / "model.safetensors").read_bytes(),
        "state": {key: value for key, value in state.items() if key not in CLOCK},
        "results": [(path, (run / path).read_text()) for path in results],
        "pictures": [path.read_bytes() for path in sorted(run.glob("samples/*.png"))],
        "leftovers": [path.name for path in run.rglob("*.unfinished")],
    }


def left_by_evaluation(folder):
    out = folder / "run"
    summary = json.loads((out / "geneval" / "summary.json").read_text())
    return {
        "rows": (out / "geneval" / "results.jsonl").read_text(),
        "numbers": summary["numbers"],
        "images": [(path.name, path.read_bytes()) for path in sorted(out.rglob("*.png"))],
        "leftovers": [path.name for path in out.rglob("*unfinished*")],
    }


OPERATIONS = {"train": 150, "shard": 150, "eval": 100}  # on files, about as many as one makes
COMMANDS = {
    "train": (training, left_by_training),
    "shard": (partial(training, more=['parallel.strategy="shard"']), left_by_training),
    "eval": (evaluation, left_by_evaluation),
}


def stories(folders, command, processes, chance, most):
    """Kill a command until it is through, again and again; yield what it was at when it was killed.

    What is left in the end must be what is left by one that nobody killed.
    """
    begin, left = COMMANDS[command]
    whole, again = folders("whole"), folders("again")
    go(begin(whole, processes))
    began = time.monotonic()
    assert go(begin(again, processes)).codes == [0] * processes
    seconds, expected = time.monotonic() - began, left(whole)
    assert left(again) == expected
    while True:
        folder, newest, ends = folders("killed"), 0, []
        moments = kills(chance, 0.7 * seconds, OPERATIONS[command], processes)
        for end in until_through(partial(begin, folder, processes), moments, most):
            ends.append(end)
            newest = check_checkpoints(folder / "run", newest)
        assert left(folder) == expected
        yield [end.moment for end in ends if end.was_killed]


@pytest.mark.parametrize("command", ["train", "eval"])
def test_a_command_that_is_killed_three_times_ends_as_if_it_had_not_been(folders, command):
    runs = stories(folders, command, 1, random.Random(0), most=3)
    assert any(next(runs) for _ in range(4)), "every one was through before its moment came"


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "processes", "number"),
    [("train", 1, 40), ("train", 2, 25), ("shard", 2, 15), ("eval", 2, 15), ("eval", 1, 25)],
)
def test_a_command_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(
    folders, command, processes, number
):
    moments, runs = Counter(), stories(folders, command, processes, random.Random(1), most=25)
    while moments.total() < number:
        moments.update(next(runs))
        print(f"{command} on {processes}: {moments.total()} kills: {dict(moments)}", flush=True)  # noqa: T201
