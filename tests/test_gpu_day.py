"""The day of the GPU is rehearsed on the CPU at tiny size, so that nothing but the device is new on it."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu_day

# the others differ by a setting, or take long to compile; `--size tiny` makes all
PARTS = [
    "tests",
    "parity",
    "waits",
    "speed, 512 px",
    "update, full",
    "update, lora, bf16 base, checkpointing",
    "update, overlapped rewards",
    "the released way",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_and_tells_numbers(part):
    found = gpu_day.measured(part, "tiny")
    json.dumps(found)
    if gpu_day.device().type == "cpu" and part in ("tests", "waits"):
        assert found["left out"] == "it needs a GPU"
    elif part == "parity":
        assert found["fp32"]["same_tokens"] == 1
        assert found["fp32"]["gradient_difference"] < 1e-5 < found["bf16"]["gradient_difference"] < 0.2
    elif part.startswith("update"):
        assert (found["ratio_min"], found["ratio_max"]) == (1.0, 1.0)
        assert found["peak_gib_planned"] > 0 < found["seconds_update"]
    elif part.startswith("speed"):
        assert found["rollout"]["images_per_second"] > 0 < found["update"]["share_of_matmul_rate"]
    else:
        assert found["same_tokens"] == 1
        assert found["gradient_difference"] < 0.2


def test_a_broken_day_goes_on_where_it_ended(tmp_path, monkeypatch, capsys):
    out, made, broken = tmp_path / "day.json", [], {"b"}

    def make(part, size, limit):
        made.append(part)
        if part == "killed":
            raise KeyboardInterrupt
        return {"failed": "out of memory"} if part in broken else {"seconds_rollout": 1.0}

    with pytest.raises(KeyboardInterrupt):
        gpu_day.go("tiny", ["a", "b", "killed", "update, c"], out, make)
    assert not gpu_day.go("tiny", ["a", "b"], out, make)
    assert "not done: b; the same command goes on" in capsys.readouterr().out
    broken.clear()
    assert gpu_day.go("tiny", ["a", "b", "update, c"], out, make)
    assert made == ["a", "b", "killed", "b", "b", "update, c"]
    assert "| c | 1 | - |" in capsys.readouterr().out
    monkeypatch.setattr(gpu_day, "machine", lambda device: {"commit": "another"})
    assert gpu_day.go("tiny", ["a"], out, make)
    assert made[-1] == "a", "what another commit measured is no result of this one"
    assert list(json.loads(out.read_text())["parts"]) == ["a"]


@pytest.mark.slow
def test_a_part_that_fails_or_takes_too_long_is_a_line():
    found = gpu_day.in_its_own_process("no such part", "tiny", 60)
    assert "invalid choice" in found["failed"]
    assert gpu_day.in_its_own_process("parity", "tiny", 0.2) == {"failed": "it took more than 0 s"}
