"""The log of a run: every row on disk at once, and what a killed run wrote too much is dropped."""

import json
import math

import pytest

from maskrl.errors import TrainingError
from maskrl.runtime.metrics import MetricsLog, is_wall_clock, read_rows, rows_of
from maskrl.sections import TrackingConfig

NOTHING = TrackingConfig(trackers=())


def write(run, count, keep=0):
    with MetricsLog(run, rows_of(run, keep, None), NOTHING) as log:
        for update in range(log.rows, count):
            log.write({"kind": "update", "update": update, "x": update / 3})
        return log.rows


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    with MetricsLog(tmp_path, [], NOTHING) as log:
        for count in range(1, 4):
            log.write({"kind": "update", "update": count})
            assert [row["update"] for row in read_rows(tmp_path)] == list(range(1, count + 1))
            assert log.rows == count


def test_rows_behind_the_checkpoint_are_dropped(tmp_path):
    write(tmp_path, 9)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "upda')
    assert write(tmp_path, 9, keep=5) == 9
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_row_that_a_kill_cut_short_is_not_read(tmp_path):
    write(tmp_path, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "upda')
    assert [row["update"] for row in read_rows(tmp_path)] == [0, 1]


def test_a_new_run_starts_an_empty_file(tmp_path):
    write(tmp_path, 4)
    assert write(tmp_path, 2) == 2


def test_numbers_survive_to_the_last_bit_and_nan_is_null(tmp_path):
    values = [0.1 + 0.2, 1e-310, math.pi, math.nan]
    with MetricsLog(tmp_path, [], NOTHING) as log:
        log.write({"kind": "eval", "update": 0, **{f"v{i}": v for i, v in enumerate(values)}})
    text = (tmp_path / "metrics.jsonl").read_text()
    row = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert [row[f"v{i}"] for i in range(3)] == values[:3]
    assert row["v3"] is None


def test_what_is_wall_clock():
    assert is_wall_clock("seconds_rollout")
    assert not is_wall_clock("reward_mean")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"cannot write .*metrics\.jsonl"):
        MetricsLog(tmp_path / "file", [], NOTHING)


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, [], TrackingConfig()) as log:
        log.write({"kind": "update", "update": 1, "reward_mean": 0.5})
        log.write({"kind": "update", "update": 2, "reward_mean": 0.75})
        log.write({"kind": "eval", "update": 2, "when": "after", "geneval": 0.25})
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("reward/reward_mean")] == [(1, 0.5), (2, 0.75)]
    assert [(e.step, e.value) for e in board.Scalars("geneval/geneval")] == [(2, 0.25)]
