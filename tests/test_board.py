"""TensorBoard: groups, pictures, the recipe; and it never stops a run."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maskrl.recipe import read_recipe
from maskrl.runtime.board import Board
from maskrl.runtime.metrics import MetricsLog, read_rows
from maskrl.runtime.tracker import tag
from maskrl.sections import TrackingConfig
from maskrl.training.loop import train

DOCS = Path(__file__).parents[1] / "docs" / "metrics.md"


def documented():
    """Every metric that the page names, with its group."""
    rows = re.findall(r"^\| (`.+?`) \| ?(\w*) \|", DOCS.read_text(), re.MULTILINE)
    return {name: group for names, group in rows for name in re.findall(r"`(.+?)`", names)}


def known(metric):
    """The name under which the page has a metric, or None."""
    for name in documented():
        if re.fullmatch(re.sub("NAME|TASK", r"\\w+", name), metric):
            return name
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every kind of metric."""
    from conftest import TOY, TOY_RECIPE
    from toy_run import geneval_prompts

    folder = tmp_path_factory.mktemp("board")
    (folder / "prompts.txt").write_text("red tiles\nblue tiles\n")
    (folder / "geneval.jsonl").write_text(geneval_prompts())
    recipe = TOY_RECIPE.replace('name = "keep_all"', 'name = "std_percentile"\nwarmup = 1')
    recipe = recipe.replace(f'[reward]\nname = "{TOY}:Red"', f'[reward.terms.red]\nreward = "{TOY}:Red"')
    (folder / "toy.toml").write_text(recipe.replace("tensorboard = false", 'trackers = ["tensorboard"]'))
    changes = [
        "reward.name=weighted_sum",
        f"eval.geneval.prompts={folder}/geneval.jsonl",
        f"eval.geneval.detector={TOY}:Tiles",
    ]
    changes += ["ema.decay=0.9", "training.max_staleness=1"]
    watch = ["watch.every=1", f"watch.rewards.red={TOY}:Red"]
    train(read_recipe(folder / "toy.toml", [*changes, *watch]), folder / "run", resume=False, display=False)
    return folder / "run"


def test_every_metric_of_a_run_is_documented_in_its_group(run):
    rows = [
        {key: value for key, value in row.items() if key not in ("kind", "update")} for row in read_rows(run)
    ]
    seen = {key for row in rows for key in row}
    evaluated = {key for row in rows if "when" in row for key in row}
    groups = documented()
    for metric in seen:
        name = known(metric)
        assert name is not None, f"docs/metrics.md does not say what {metric} is"
        assert groups[name] in (tag(metric, "geneval" if metric in evaluated else None).split("/")[0], ""), (
            metric
        )
    assert {name for name in groups if not re.search("NAME|TASK", name)} <= seen


def test_the_board_shows_groups_pictures_and_the_recipe(run):
    board = EventAccumulator(str(run / "tensorboard")).Reload()
    scalars, images = board.Tags()["scalars"], board.Tags()["images"]
    assert {name.split("/")[0] for name in scalars} == {
        *("reward", "groups", "images", "update", "seconds", "geneval")
    }
    assert [event.step for event in board.Images("samples")] == [0, 2]
    assert sorted(images) == ["before_after", "samples"]
    (table,) = board.Tensors("geneval/before_after/text_summary")
    assert b"| before | after | difference |" in table.tensor_proto.string_val[0]
    (recipe,) = board.Tensors("recipe/text_summary")
    assert b"prompts_per_update = 2" in recipe.tensor_proto.string_val[0]


def test_a_board_that_cannot_be_written_is_given_up_in_a_line(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.warns(UserWarning, match="the tracker 'tensorboard' is given up: .*File exists"):
        log = MetricsLog(tmp_path, [], TrackingConfig())
    with log:
        log.write({"kind": "update", "update": 1, "reward_mean": 0.5})
    assert [row["reward_mean"] for row in read_rows(tmp_path)] == [0.5]


def test_pictures_keep_their_size(tmp_path):
    board = Board(tmp_path / "board")
    board.picture("sheet", np.zeros((20, 30, 3), np.uint8), 3)
    board.close()
    (event,) = EventAccumulator(str(tmp_path / "board")).Reload().Images("sheet")
    assert (event.step, event.width, event.height) == (3, 30, 20)


def test_a_resumed_run_shows_every_number_once_and_its_recipe(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    train(read_recipe(copy / "recipe.toml"), copy, resume=True, display=False)
    seen = EventAccumulator(str(copy / "tensorboard")).Reload()
    rows = [row for row in read_rows(copy) if "geneval" in row]
    assert [event.step for event in seen.Scalars("geneval/geneval")] == [row["update"] for row in rows]
    assert any(name.startswith("recipe") for name in seen.Tags()["tensors"])
