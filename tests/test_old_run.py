"""A run and an evaluation that an earlier maskrl made (commit 5612623) are resumed, evaluated, compared, sampled."""

import json
import shutil
from pathlib import Path

import pytest

from maskrl.runtime.metrics import read_rows

FIXTURE = Path(__file__).parent / "fixtures" / "old_run"
TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the folder, as if it had been made here."""
    monkeypatch.setenv("TOY_HARMLESS", "1")
    folder = tmp_path / "old"
    shutil.copytree(FIXTURE, folder)
    recipe = folder / "run" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("@TOY@", str(TOY)).replace("@FOLDER@", str(folder)))
    return folder


def test_an_old_run_is_resumed_where_it_stopped(old, cli):
    result = cli("train", "--run", old / "run", "--resume")
    assert result.code == 0, result.err
    assert "this run does not say what it read when it began" in result.out
    rows = [row for row in read_rows(old / "run") if row["kind"] == "update"]
    assert [row["update"] for row in rows] == [1, 2, 3, 4, 5, 6]
    expected = json.loads((old / "last_rows.jsonl").read_text().splitlines()[0])
    for key in ("reward_mean", "entropy", "diversity_tokens"):
        assert rows[4][key] == pytest.approx(expected[key], rel=1e-6)
    before = next(row for row in read_rows(old / "run") if row["kind"] == "eval")
    assert (before["when"], before["update"]) == ("before", 0)


def test_an_old_run_still_refuses_another_recipe(old, cli):
    result = cli("train", "--run", old / "run", "--resume", "--set", "grpo.group_size=5")
    assert result.code == 2
    assert "belongs to another recipe: grpo.group_size is 4 there and 5 here" in result.err


def test_an_old_run_is_evaluated_sampled_and_compared_with_an_old_evaluation(old, cli, tmp_path):
    assert cli("sample", "red", "--run", old / "run", "--out", tmp_path / "grid.png").code == 0
    result = cli("eval", "geneval", "--run", old / "run", "--out", tmp_path / "new")
    assert result.code == 0, result.err
    compared = cli("eval", "compare", old / "eval" / "geneval", tmp_path / "new" / "geneval")
    assert compared.code == 0, compared.err
    assert "overall" in compared.out


def test_images_of_an_old_evaluation_are_judged_again_with_the_same_verdicts(old, cli, tmp_path):
    detector = ("--set", f"eval.geneval.detector={TOY}:Tiles")
    result = cli(
        "eval", "geneval", "--images", old / "eval" / "images", "--out", tmp_path / "again", *detector
    )
    assert result.code == 0, result.err
    compared = cli("eval", "compare", old / "eval" / "geneval", tmp_path / "again" / "geneval")
    assert compared.code == 0, compared.err
    overall = next(line for line in compared.out.splitlines() if "overall" in line)
    assert "+0.000" in overall


def judge_again(old, cli, out):
    """Judge the old images where an old evaluation was killed after eight rows and a part of one."""
    shutil.copytree(old / "eval_unfinished", out / "geneval" / "unfinished")
    detector = ("--set", f"eval.geneval.detector={TOY}:Tiles")
    return lambda: cli("eval", "geneval", "--images", old / "eval" / "images", "--out", out, *detector)


def test_an_old_unfinished_evaluation_is_judged_from_its_beginning(old, cli, tmp_path):
    command = judge_again(old, cli, tmp_path / "out")
    rows = tmp_path / "out/geneval/unfinished/0.jsonl"
    text = rows.read_text()
    assert '"correct": true' in text
    rows.write_text(text.replace('"correct": true', '"correct": false'))  # nobody can tell: no row is trusted
    result = command()
    assert result.code == 0, result.err
    rows = [(out / "geneval/results.jsonl").read_text() for out in (tmp_path / "out", old / "eval")]
    assert rows[0] == rows[1]
    assert not (tmp_path / "out/geneval/unfinished").exists()


def test_what_another_old_evaluation_left_is_refused_and_goes_on_as_the_line_says(old, cli, tmp_path):
    command = judge_again(old, cli, tmp_path / "out")
    left = tmp_path / "out/geneval/unfinished"
    settings = json.loads((left / "settings.json").read_text())
    (left / "settings.json").write_text(json.dumps({**settings, "protocol": "another"}))
    refused = command()
    assert refused.code == 2
    assert "they differ in protocol; finish that one, choose another --out, or delete" in refused.err
    assert (left / "0.jsonl").read_bytes() == (old / "eval_unfinished/0.jsonl").read_bytes()
    shutil.rmtree(left)
    assert command().code == 0
