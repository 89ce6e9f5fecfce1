"""A run that learns nothing says so, and why; whatever looks at a run between updates loses none of them."""

import shutil

import pytest
from test_failing import comparable
from toy_run import geneval_prompts

from maskrl.runtime.checkpoint import listed
from maskrl.training.lessons import WARN_AFTER, Lessons, why_nothing_was_learnt

PARTS = """
import os
import torch
from maskrl.component import ComponentConfig
from maskrl.filters.keep_all import KeepAll
from maskrl.interfaces import RewardModel
from toy_run import Tiles

class Constant(RewardModel):
    def score(self, images, prompts):
        return torch.full((len(prompts),), 12345.678)

class Nothing(KeepAll):
    def keep(self, rewards):
        return torch.zeros(len(rewards), dtype=torch.bool)

class FullDisk(Tiles):
    '''Judges the base and two evaluations of 24 images; then the device is full.'''
    images = 0

    def detect(self, image):
        type(self).images += 1
        if type(self).images == 73:
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")
        return super().detect(image)

class InTheWay(Tiles):
    is_there = False

    def detect(self, image):
        if not type(self).is_there:
            os.makedirs('run/samples/update_00004.png/inside')
            type(self).is_there = True
        return super().detect(image)
"""
CONSTANT = "equal rewards (12345.7 on average)"


@pytest.fixture
def world(toy_recipe, tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    monkeypatch.chdir(tmp_path)
    toy_recipe.write_text(toy_recipe.read_text().replace("updates = 2", "updates = 7"))
    return toy_recipe


def start(cli, world, *changes, run="run"):
    return cli("train", "--recipe", world, "--run", run, *(f"--set={change}" for change in changes))


@pytest.mark.parametrize(
    ("change", "reason", "skipped"),
    [
        ("reward.name=parts.py:Constant", CONSTANT, 0),
        (
            "filter.name=parts.py:Nothing",
            "parts.py:Nothing' kept no group (the rewards' std within groups is 0.",
            1,
        ),
    ],
)
def test_a_run_that_learns_nothing_says_so_and_ends_if_it_is_told_to(cli, world, change, reason, skipped):
    patient = start(cli, world, change, "training.max_skipped=")
    assert patient.code == 0, patient.err
    assert patient.out.count("nothing was learnt from 5 updates in a row: ") == 1
    assert reason in patient.out
    assert ("kept 0% (skipped)" in patient.out) == bool(skipped)
    strict = start(cli, world, change, "training.max_skipped=3", "checkpoint.every=100", run="strict")
    assert strict.code == 4
    assert "update 3: nothing was learnt from 3 updates in a row: " in strict.err
    assert reason in strict.err
    assert len(strict.err.splitlines()) == 1
    assert [path.name for path in listed(world.parent / "strict/checkpoints")] == ["update_00003"]
    # a resumed run may be given more patience, or none
    assert cli("train", "--run", "strict", "--resume", "--set=training.max_skipped=").code == 0
    assert comparable(world.parent / "strict") == comparable(world.parent / "run")


def test_a_run_that_learns_is_not_warned(cli, world):
    learns = start(cli, world, "training.max_skipped=1")
    assert learns.code == 0, learns.err
    assert "nothing was learnt" not in learns.out
    assert "kept 100%" in learns.out


def test_one_lesson_begins_the_count_anew():
    empty = {"reward_mean": 0.5, "reward_std": 0.1, "skipped": 1.0, "filter_threshold": 0.2}
    full = {**empty, "skipped": 0.0}
    lessons = Lessons("std_percentile", most=None)
    said = [
        lessons.note(metrics) for metrics in [*[empty] * (WARN_AFTER - 1), full, *[empty] * (WARN_AFTER + 3)]
    ]
    assert [text is not None for text in said].index(True) == 2 * WARN_AFTER - 1
    assert sum(text is not None for text in said) == 1
    assert not lessons.are_over
    assert why_nothing_was_learnt(full, "std_percentile") is None
    assert why_nothing_was_learnt(empty, "std_percentile") == (
        "filter 'std_percentile' kept no group (the rewards' std within groups is 0.1, its threshold is 0.2)"
    )


def test_greedy_steps_alone_are_another_reason_than_the_filter():
    greedy = {"reward_std": 0.1, "reward_mean": 1.0, "skipped": 1.0, "kept_fraction": 0.5}
    assert "the reducer chose greedy steps alone" in why_nothing_was_learnt(greedy, "std_percentile")
    rejected = why_nothing_was_learnt(greedy | {"kept_fraction": 0.0}, "std_percentile")
    assert "filter 'std_percentile' kept no group" in rejected


def test_an_evaluation_that_fails_between_updates_loses_none(cli, world):
    """Those of updates 2 and 4 are sound, that of update 6 fails; resumed, the run is what it would have been."""
    evaluated = ["eval.geneval.prompts=geneval.jsonl", "eval.geneval.detector.name=parts.py:FullDisk",
                 "eval.geneval.images_per_prompt=2",
                 "eval.geneval.every=2", "checkpoint.every=100", "tracking.sample_prompts=[]"]  # fmt: skip
    failed = start(cli, world, *evaluated)
    assert failed.code == 4, failed.err
    assert "update 6: the device is out of memory (tried to allocate 9 GiB); lower " in failed.err
    assert "eval.NAME.batch" in failed.err
    assert [path.name for path in listed(world.parent / "run/checkpoints")] == ["update_00006"]
    assert cli("train", "--run", "run", "--resume").code == 0
    assert start(cli, world, *evaluated, run="whole").code == 0
    rows = comparable(world.parent / "run")
    assert [row["update"] for row in rows if row["kind"] == "eval"] == [0, 2, 4, 6, 7]
    assert rows == comparable(world.parent / "whole")


def test_a_picture_that_cannot_be_written_loses_no_update_and_doubles_no_row(cli, world):
    """The evaluation of update 4 has its row when the picture of update 4 fails."""
    looks = ["eval.geneval.prompts=geneval.jsonl", "eval.geneval.images_per_prompt=2",
             "eval.geneval.every=2", "checkpoint.every=100", "tracking.samples_every=4"]  # fmt: skip
    detector = "eval.geneval.detector.name=parts.py:InTheWay"
    failed = start(cli, world, *looks, detector)
    assert failed.code == 4, failed.err
    assert len(failed.err.splitlines()) == 1
    assert "update_00004.png" in failed.err
    assert [path.name for path in listed(world.parent / "run/checkpoints")] == ["update_00004"]
    shutil.rmtree("run/samples/update_00004.png")
    assert cli("train", "--run", "run", "--resume").code == 0
    assert start(cli, world, *looks, detector, run="whole").code == 0
    assert comparable(world.parent / "run") == comparable(world.parent / "whole")
