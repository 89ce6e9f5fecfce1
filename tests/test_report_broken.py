"""Runs that went wrong, really made: what their reports say of them, and that each has a page."""

import pytest
from conftest import TOY

from maskrl.errors import TrainingError
from maskrl.recipe import read_recipe
from maskrl.report.measured import judged
from maskrl.report.page import render
from maskrl.report.reading import read_run
from maskrl.report.verdicts import FINE, LOOK, NOTE, TROUBLE, by_weight, verdicts
from maskrl.training.loop import train

WATCHED = f'watch={{ every = 2, rewards = {{ blue = "{TOY}:Blue" }} }}'


@pytest.fixture
def run_of(toy_recipe, tmp_path):
    """Train the toy with some settings changed, in one folder; return the folder."""

    def run(*changes, resume=False):
        recipe = read_recipe(toy_recipe, ["tracking.samples_every=1", *changes])
        train(recipe, tmp_path / "run", resume=resume, display=False)
        return tmp_path / "run"

    return run


def said(folder):
    """Return what is said of a run, by weight, and see that its page says it too."""
    run = read_run(folder, "it")
    found = by_weight([*verdicts(run), *judged(run)])
    page = render([folder])
    assert page.count('<span class="weight">') == len(found)
    return {weight: " ".join(one.text for one in found if one.weight == weight)
            for weight in (FINE, NOTE, LOOK, TROUBLE)}  # fmt: skip


def test_a_reward_that_is_hacked(run_of):
    lines = said(run_of("training.updates=30", "training.prompts_per_update=4", "grpo.group_size=8", WATCHED))
    assert "The reward rose" in lines[FINE]
    assert "held-out reward blue fell" in lines[TROUBLE]
    assert "No evaluation was made" in lines[LOOK]


def test_a_run_that_collapsed(run_of):
    lines = said(run_of("training.updates=40", "training.learning_rate=0.1", "grpo.group_size=8"))
    assert "nothing is left to learn from" in lines[TROUBLE]
    assert "Diversity of tokens fell to less than a tenth" in lines[TROUBLE]


def test_a_reward_that_is_no_number_is_named_until_the_run_goes_on(run_of, tmp_path, monkeypatch):
    settings = ("training.updates=4", "reward.after=3")
    with pytest.raises(TrainingError) as end:
        run_of(*settings)
    lines = said(tmp_path / "run")
    assert f"It ended with an error: {end.value}" in lines[TROUBLE]
    assert "nan" in lines[TROUBLE]
    assert "goes on" not in lines[LOOK]
    monkeypatch.setenv("TOY_HARMLESS", "1")
    lines = said(run_of(*settings, resume=True))
    assert lines[TROUBLE] == ""
    assert "It was interrupted and resumed once." in lines[NOTE]


def test_a_run_that_was_ended_and_resumed(run_of, tmp_path, monkeypatch):
    settings = ("training.updates=4", "reward.after=2", "reward.then=SIGTERM")
    with pytest.raises(SystemExit):
        run_of(*settings)
    lines = said(tmp_path / "run")
    assert "2 of 4 updates are made: it goes on, or was stopped." in lines[LOOK]
    assert lines[TROUBLE] == ""
    monkeypatch.setenv("TOY_HARMLESS", "1")
    lines = said(run_of(*settings, resume=True))
    assert "It was interrupted and resumed once." in lines[NOTE]
    assert "of 4 updates" not in lines[LOOK]


def test_a_run_of_one_update_has_its_pictures_and_no_trend(run_of):
    folder = run_of("training.updates=1")
    lines = said(folder)
    assert "One update was made: too few to tell a trend." in lines[NOTE]
    assert lines[FINE] == lines[TROUBLE] == ""
    page = render([folder])
    assert "There are no curves: they need two updates." in page
    assert "Groups of update 1" in page
    assert '<figure class="film"' in page
