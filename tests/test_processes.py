"""Two processes do together what one does alone."""

import json
import sys
from pathlib import Path

import pytest
import torch
from processes import run
from test_training import RECIPE, comparable, weights
from toy_run import geneval_prompts

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed
from maskrl.training.loop import train

LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "maskrl",
    "--",
]
CHANGES = ("generator.double=true", "training.prompts_per_update=4", "tracking.samples_every=100")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(7)))
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    return tmp_path


def launch(folder, *arguments):
    """Run maskrl in two processes."""
    return run([*LAUNCH, *arguments], timeout=300, cwd=folder)


def assert_same_rows(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        numbers = {key: value for key, value in mine.items() if isinstance(value, float)}
        rest = {key: value for key, value in mine.items() if key not in numbers}
        assert rest == {key: other[key] for key in rest}  # words, counts, missing standard errors
        assert {key: other[key] for key in numbers} == pytest.approx(numbers, rel=1e-9, abs=1e-12)


def settings(*changes):
    return [part for change in changes for part in ("--set", change)]


def test_two_processes_make_the_updates_of_one(folder):
    alone = train(read_recipe(folder / "recipe.toml", CHANGES), folder / "alone", resume=False, display=False)
    two = launch(folder, "train", "--recipe", "recipe.toml", "--run", "two", *settings(*CHANGES))
    assert two.returncode == 0, two.stderr
    assert two.stdout.count(f"run: {(folder / 'two').resolve()}\n") == 1
    ours, theirs = comparable(alone.run), comparable(folder / "two")
    assert_same_rows(ours, theirs)
    for name, tensor in weights(alone.run).items():
        torch.testing.assert_close(weights(folder / "two")[name], tensor, rtol=1e-9, atol=1e-12)
    before = (folder / "alone/eval/geneval/before/results.jsonl").read_text()
    assert (folder / "two/eval/geneval/before/results.jsonl").read_text() == before
    assert (folder / "two/samples/before_after.png").exists()


@pytest.mark.slow
def test_two_processes_resume_what_one_began(folder):
    fewer = [*CHANGES, "training.updates=4", "training.lr_schedule=constant", "eval="]
    whole = read_recipe(folder / "recipe.toml", fewer)
    train(whole, folder / "whole", resume=False, display=False)
    train(whole, folder / "run", resume=False, display=False)
    for update in (3, 4):  # as if the run had been killed in its third update
        for path in sorted((folder / "run/checkpoints").glob(f"update_{update:05d}")):
            for file in sorted(path.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            path.rmdir()
    resumed = launch(folder, "train", "--run", "run", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_rows(comparable(folder / "whole"), comparable(folder / "run"))


def test_two_processes_paint_and_judge_what_one_does(folder):
    recipe = ("--recipe", "recipe.toml", "--set", "generator.double=true")
    two = launch(folder, "eval", "geneval", *recipe, "--out", "two")
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("results: two/geneval") == 1
    alone = [sys.executable, "-m", "maskrl", "eval", "geneval", *recipe, "--out", "one"]
    assert run(alone, timeout=300, cwd=folder).returncode == 0
    rows = [(folder / name / "geneval/results.jsonl").read_text() for name in ("two", "one")]
    assert rows[0] == rows[1]
    summaries = [json.loads((folder / name / "geneval/summary.json").read_text()) for name in ("two", "one")]
    for name, summary in zip(("two", "one"), summaries, strict=True):
        assert summary["provenance"].pop("judged")["folder"] == str(folder / name / "images")
    assert summaries[0] == summaries[1]
    images = [
        sorted(path.relative_to(folder / n) for path in (folder / n).rglob("*.png")) for n in ("one", "two")
    ]
    assert images[0] == images[1]
    assert len(images[0]) == 24


@pytest.mark.slow
def test_an_update_that_does_not_divide_names_what_does(folder):
    odd = launch(folder, "train", "--recipe", "recipe.toml", "--run", "odd", "--quiet")
    assert odd.returncode != 0
    assert "prompts_per_update = 3 does not divide among 2 processes; choose 2 or 4" in odd.stderr
    assert not (folder / "odd").exists()


def test_a_share_of_nothing_is_refused():
    from maskrl.training.setup import _share

    with pytest.raises(RecipeError, match="choose 8"):
        _share(3, 8)
    assert _share(16, 8) == 2


UNEQUAL = """
import torch
from torch import nn
from maskrl.runtime.placement import Placement

placement = Placement("cpu")
a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
used = a if placement.rank == 0 else b
(used * torch.tensor([1.0, 2.0]) * (1 + placement.rank)).sum().backward()
placement.sum_gradients([a, b, c])
assert a.grad.tolist() == [1.0, 2.0], a.grad
assert b.grad.tolist() == [2.0, 4.0], b.grad
assert c.grad.tolist() == [0.0, 0.0], c.grad
placement.leave()
"""


def test_gradients_of_different_parameters_are_not_added_to_each_other(tmp_path):
    (tmp_path / "unequal.py").write_text(UNEQUAL)
    done = run([*LAUNCH[:-3], str(tmp_path / "unequal.py")], timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


PATIENT = """
import torch
from torch import distributed
from maskrl.runtime.placement import PATIENCE, Placement

placement = Placement("cpu")
group = distributed.group.WORLD
assert group._get_backend(torch.device("cpu")).options._timeout == PATIENCE
placement.leave()
"""


@pytest.mark.slow
def test_processes_wait_for_hours_while_the_main_one_saves(tmp_path):
    (tmp_path / "patient.py").write_text(PATIENT)
    done = run([*LAUNCH[:-3], str(tmp_path / "patient.py")], timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_an_error_on_one_process_saves_the_updates_of_all_and_is_a_line_on_each(toy_recipe, tmp_path, rank):
    (tmp_path / "fails.py").write_text(
        f"import os, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport toy_run\n"
        "class Fails(toy_run.Red):\n    def score(self, images, prompts):\n"
        "        scores = super().score(images, prompts)\n"
        f"        if self.calls == 4 and os.environ['RANK'] == '{rank}':\n"
        "            raise ConnectionError('the judge is away')\n        return scores\n"
    )
    changes = ("reward.name=fails.py:Fails", "training.updates=6", "checkpoint.every=100")
    done = launch(tmp_path, "train", "--recipe", str(toy_recipe), "--run", "run", *settings(*changes))
    assert done.returncode != 0
    assert [path.name for path in listed(tmp_path / "run/checkpoints")] == ["update_00003"]
    ours = [row for row in done.stderr.splitlines() if row.startswith("maskrl: ")]
    assert any("the reward 'Fails' raised ConnectionError: the judge is away" in row for row in ours)
    assert "maskrl/cli/__init__.py" not in done.stderr, done.stderr  # no traceback of ours
