"""Trackers of accelerate's: by name, with numbers, pictures, tables; and whatever fails in one, the run is whole."""

import re
import warnings

import pytest
from accelerate import tracking
from conftest import TOY
from toy_run import geneval_prompts

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.runtime.metrics import read_rows
from maskrl.training.loop import train


class Recording(tracking.GeneralTracker):
    """Remembers what it is told, and fails where it should."""

    name, requires_logging_directory = "recording", True
    last = None
    fails, with_ = "", RuntimeError("no network")

    def __init__(self, run_name, logging_dir, **options):
        super().__init__()
        self.told = [("opened", run_name, logging_dir, options)]
        type(self).last = self

    @property
    def tracker(self):
        return self.told

    def _note(self, what, *told):
        print("a tracker talks")  # noqa: T201
        if what == self.fails:
            raise self.with_
        self.told.append((what, *told))

    def start(self):
        self._note("start")

    def store_init_configuration(self, values):
        self._note("recipe", values)

    def log(self, values, step=None):
        self._note("log", values, step)

    def log_images(self, values, step=None):
        self._note("image", values, step)

    def log_table(self, table_name, columns=None, data=None, dataframe=None, step=None):
        self._note("table", table_name, columns, data, step)

    def finish(self):
        self._note("finish")

    def of(self, what):
        return [told for told in self.told if told[0] == what]


@pytest.fixture
def recording(monkeypatch):
    """A tracker in accelerate's table, fresh."""
    kind = type("Fresh", (Recording,), {"__module__": "stranger"})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "recording", kind)
    return kind


@pytest.fixture
def evaluated(toy_recipe):
    """A recipe with an evaluation."""
    (toy_recipe.parent / "geneval.jsonl").write_text(geneval_prompts())
    toy_recipe.write_text(
        toy_recipe.read_text() + f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\n'
    )
    return toy_recipe


_WHOLE = {}  # the rows of the run without a tracker, made once


def go(recipe, run, *changes, resume=False):
    train(
        read_recipe(recipe, ["tracking.tensorboard=", "tracking.trackers=['recording']", *changes]),
        run,
        resume,
        display=False,
    )


def rows(run):
    return [{k: v for k, v in row.items() if not k.startswith("seconds_")} for row in read_rows(run)]


def test_a_tracker_by_name_has_numbers_pictures_tables_and_the_recipe(evaluated, tmp_path, recording, capsys):
    go(evaluated, tmp_path / "run", "tracking.options.recording={ mode = 'quiet' }", "tracking.project=mine")
    mine, written = recording.last, list(read_rows(tmp_path / "run"))
    assert mine.told[0] == ("opened", "mine", str(tmp_path / "run" / "recording"), {"mode": "quiet"})
    (recipe,) = mine.of("recipe")
    assert recipe[1]["grpo"]["group_size"] == 4
    assert [step for _, _, step in mine.of("log")] == [row["update"] for row in written]
    rewards = [
        numbers["reward/reward_mean"] for _, numbers, _ in mine.of("log") if "reward/reward_mean" in numbers
    ]
    assert rewards == [row["reward_mean"] for row in written if row["kind"] == "update"]
    assert [(list(values), step) for _, values, step in mine.of("image")] == [
        (["samples"], 0),
        (["samples"], 2),
        (["before_after"], 2),
    ]
    assert all(image.size[0] > 8 for _, values, _ in mine.of("image") for (image,) in values.values())
    ((_, name, columns, data, step),) = mine.of("table")
    assert (name, columns, step) == ("geneval/before_after", ["", "before", "after", "difference"], 2)
    assert data[0][0] == "overall"
    assert all(len(line) == 4 for line in data)
    assert mine.told[-1] == ("finish",)
    out, err = capsys.readouterr()
    assert "a tracker talks" not in out
    assert "a tracker talks" in err


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        (moment, RuntimeError("no\nnetwork"))
        for moment in ("start", "recipe", "log", "image", "table", "finish")
    ]
    + [("start", SystemExit(1))],
)
def test_a_tracker_that_fails_at_any_moment_costs_one_line(fails, error, evaluated, tmp_path, recording):
    if "rows" not in _WHOLE:
        go(evaluated, tmp_path / "without", "tracking.trackers=[]")
        _WHOLE["rows"] = rows(tmp_path / "without")
    recording.fails, recording.with_ = fails, error
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        go(evaluated, tmp_path / "run")
    mine = [str(one.message) for one in said if "tracker" in str(one.message)]
    assert mine == [f"the tracker 'recording' is given up: {' '.join(str(error).split())}"]
    assert rows(tmp_path / "run") == _WHOLE["rows"]
    assert recording.last.of("finish") == [], "who has failed is left alone"


def test_a_resumed_run_is_there_from_its_first_number(evaluated, tmp_path, recording):
    go(evaluated, tmp_path / "run")
    go(evaluated, tmp_path / "run", "training.updates=3", resume=True)
    steps = [step for _, numbers, step in recording.last.of("log") if "reward/reward_mean" in numbers]
    assert steps == [1, 2, 3]


def test_a_tracker_whose_package_is_missing_says_what_to_install(toy_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("maskrl.runtime.service.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="the tracker 'comet_ml' is given up: .*pip install comet-ml"):
        go(toy_recipe, tmp_path / "run", "tracking.trackers=['comet_ml']")
    assert len(list(read_rows(tmp_path / "run"))) == 2


def test_one_that_fails_takes_no_other_with_it(toy_recipe, tmp_path, recording):
    recording.fails = "log"
    with pytest.warns(UserWarning, match="'recording' is given up"):
        go(toy_recipe, tmp_path / "run", "tracking.trackers=['recording', 'tensorboard']")
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_an_unknown_tracker_is_a_line(toy_recipe):
    with pytest.raises(RecipeError, match=r"tracking\.trackers.*'wandbb'; did you mean 'wandb'\?"):
        read_recipe(toy_recipe, ["tracking.tensorboard=", "tracking.trackers=['wandbb']"])
    with pytest.raises(RecipeError, match=r"options\.wandb: 'wandb' is not among the trackers"):
        read_recipe(toy_recipe, ["tracking.options.wandb={ mode = 'offline' }"])


@pytest.mark.parametrize(
    ("written", "trackers"),
    [
        (["tracking.tensorboard=true"], ("tensorboard",)),
        (["tracking.tensorboard=false"], ()),
        (["tracking.tensorboard="], ("tensorboard",)),
    ],
)
def test_the_old_switch_is_read_as_what_it_meant(toy_recipe, written, trackers):
    toy_recipe.write_text(toy_recipe.read_text().replace("tensorboard = false\n", ""))
    recipe = read_recipe(toy_recipe, written)
    assert recipe.tracking.trackers == trackers
    assert "tensorboard =" not in recipe.to_toml()


@pytest.mark.parametrize("change", ["tracking.tensorboard=perhaps", "tracking.trackers=['wandb']"])
def test_the_old_switch_with_another_value_or_beside_the_new_is_a_line(toy_recipe, change):
    with pytest.raises(RecipeError, match=re.escape('write trackers = ["tensorboard"]')):
        read_recipe(toy_recipe, [change])


@pytest.mark.long
def test_wandb_writes_offline(evaluated, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is nobody's dependency: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    go(evaluated, tmp_path / "run", "tracking.trackers=['wandb']")
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert list(folder.glob("run-*.wandb"))
