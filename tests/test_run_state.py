"""What happens around a run: twice, side by side, after something changed under it, half gone, moved, named oddly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toy_run import geneval_prompts

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.runtime.checkpoint import listed
from maskrl.runtime.metrics import is_wall_clock, last_update, read_rows
from maskrl.training.opening import read_before

TOY = Path(__file__).with_name("toy_run.py")


@pytest.fixture
def world(toy_recipe, tmp_path):
    """A recipe with an evaluation, two of whose four updates have been made, and the run's folder."""
    shutil.copy(TOY, tmp_path / "toy_run.py")
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    text = toy_recipe.read_text().replace(str(TOY), "toy_run.py").replace("updates = 2", "updates = 4")
    toy_recipe.write_text(
        text
        + '[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "toy_run.py:Tiles"\nimages_per_prompt = 1\n'
    )
    return toy_recipe


def begin(cli, world, *changes, run="run"):
    options = [f"--set={change}" for change in ("checkpoint.every=1", *changes)]
    return cli("train", "--recipe", world, "--run", world.parent / run, *options)


def half(cli, world):
    """Make the first two updates of four; the run is then to be resumed."""
    assert begin(cli, world, "training.updates=2").code == 0
    run = world.parent / "run"
    rows = [line for line in (run / "metrics.jsonl").read_bytes().splitlines(True) if b'"after"' not in line]
    (run / "metrics.jsonl").write_bytes(b"".join(rows))
    return run


def resume(cli, run, *changes):
    return cli("train", "--run", run, "--resume", *(f"--set={c}" for c in ("training.updates=4", *changes)))


def comparable(run):
    return [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(run)]


def test_a_run_in_two_parts_is_the_run_in_one(cli, world):
    assert begin(cli, world, run="whole").code == 0
    run = half(cli, world)
    result = resume(cli, run)
    assert "continuing with training.updates = 4, was 2" in result.out
    assert comparable(run) == comparable(world.parent / "whole")


@pytest.mark.parametrize("change", ["training.micro_batch=2", "training.rollout_batch=1"])
def test_the_advice_for_a_full_device_can_be_followed_on_resume(cli, world, change):
    run = half(cli, world)
    result = resume(cli, run, change)
    assert result.code == 0
    assert f"continuing with {change.partition('=')[0]} = " in result.out


@pytest.mark.parametrize("loss", ["removed", "dangling", "file"])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(cli, world, loss):
    run = half(cli, world)
    before = (run / "metrics.jsonl").read_bytes()
    shutil.move(run / "checkpoints", world.parent / "scratch")
    if loss == "dangling":
        (run / "checkpoints").symlink_to(world.parent / "not-mounted")
    if loss == "file":
        (run / "checkpoints").write_text("")
    result = resume(cli, run)
    assert result.code == 4
    assert "has made 2 updates, but no checkpoint can be found" in result.err
    assert len(result.err.splitlines()) == 1
    assert (run / "metrics.jsonl").read_bytes() == before
    if loss != "removed":
        (run / "checkpoints").unlink()
    shutil.move(world.parent / "scratch", run / "checkpoints")  # "restore that folder"
    assert resume(cli, run).code == 0


def test_a_run_whose_checkpoints_are_lost_can_be_begun_again_as_the_message_says(cli, world):
    run = half(cli, world)
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    assert resume(cli, run).code == 0
    assert [row["update"] for row in read_rows(run) if row["kind"] == "update"] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["cut", "torn", "emptied", "zeroed", "edited"])
def test_damaged_metrics_are_noticed_and_the_advice_works(cli, world, damage):
    run = half(cli, world)
    path = run / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(True)
    path.write_bytes(
        {
            "cut": b"".join(lines[:-1]),
            "torn": whole[:-5],
            "emptied": b"",
            "zeroed": bytes(len(whole)),
            "edited": whole.replace(b'"update": 1', b'"update": 7'),
        }[damage]
    )
    result = resume(cli, run)
    assert result.code == 4
    assert "metrics.jsonl' " in result.err
    assert "restore it, or delete it: then the run goes on without the rows before" in result.err
    path.unlink()
    assert resume(cli, run).code == 0
    assert [row["update"] for row in read_rows(run) if row["kind"] == "update"] == [3, 4]


def test_what_a_kill_wrote_behind_the_checkpoint_is_made_again(cli, world):
    run = half(cli, world)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "update", "update": 3}\n{"kind": "upda')
    assert resume(cli, run).code == 0
    assert [row["update"] for row in read_rows(run) if row["kind"] == "update"] == [1, 2, 3, 4]


def test_the_base_is_measured_again_under_its_own_name(cli, world):
    run = half(cli, world)
    before = json.loads((run / "eval" / "geneval" / "before" / "summary.json").read_text())
    shutil.rmtree(run / "eval" / "geneval" / "before")
    assert resume(cli, run).code == 0
    again = json.loads((run / "eval" / "geneval" / "before" / "summary.json").read_text())
    assert again["provenance"]["update"] == 0
    assert again["numbers"] == before["numbers"]


@pytest.mark.parametrize("name", ["prompts.txt", "geneval.jsonl", "toy_run.py"])
def test_what_a_run_reads_may_not_change_under_it(cli, world, name):
    run = half(cli, world)
    path = world.parent / name
    was = path.read_text()
    changes = {
        "prompts.txt": ("tiles", "squares"),
        "geneval.jsonl": ("poppy", "leaf"),
        "toy_run.py": ("red\n", "-red\n"),
    }
    path.write_text(was.replace(*changes[name]))
    assert path.read_text() != was
    for module in [m for m in sys.modules if m.startswith("maskrl_local")]:
        del sys.modules[module]
    result = resume(cli, run)
    assert result.code == 2
    assert "the contents of " in result.err
    assert "began: " in result.err
    assert len(result.err.splitlines()) == 1
    copies = list((run / "plugins").glob(f"*/{name}"))
    path.write_text(copies[0].read_text() if copies else was)  # "put back what was there"
    for module in [m for m in sys.modules if m.startswith("maskrl_local")]:
        del sys.modules[module]
    assert resume(cli, run).code == 0


def test_one_run_has_one_owner(cli, world):
    run = half(cli, world)
    before = sorted(path.name for path in run.rglob("*"))
    with files.owned(run):
        command = [sys.executable, "-m", "maskrl", "train", "--run", str(run), "--resume"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        beside = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert beside.returncode == 4
        assert f"is being written by process {os.getpid()}" in beside.stderr
        assert "Traceback" not in beside.stderr
        left = sorted(path.name for path in run.rglob("*") if path.name not in (files.LOCK, files.OWNER))
    assert left == [name for name in before if name not in (files.LOCK, files.OWNER)]


def test_starts_in_one_second_have_folders_of_their_own(cli, world, monkeypatch):
    monkeypatch.chdir(world.parent)
    runs = [cli("train", "--recipe", world, "--set=training.updates=0", "--set=eval=").out for _ in range(3)]
    folders = {out.splitlines()[-1].removeprefix("run: ") for out in runs}
    assert len(folders) == 3
    assert all(Path(folder, "recipe.toml").is_file() for folder in folders)


@pytest.mark.parametrize("name", ["a run", "res[bold]x", "läuft", "-x", "100%"])
def test_a_run_may_be_called_anything_and_be_moved(cli, world, name):
    run = half(cli, world)
    moved = world.parent / "elsewhere" / name
    moved.parent.mkdir()
    shutil.move(run, moved)
    result = resume(cli, moved)
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1] == f"run: {moved}"
    assert last_update(moved) == 4


def test_the_record_says_what_ran_where(cli, world):
    run = half(cli, world)
    assert resume(cli, run).code == 0
    record = json.loads((run / "run.json").read_text())
    assert record["saved"] == 4
    assert len(record["starts"]) == 2
    about = record["starts"][0]
    assert about["versions"].keys() >= {"maskrl", "torch", "numpy"}
    assert about.keys() >= {"python", "processor", "cores", "processes", "commit", "devices"}
    assert set(record["contents"]["reward"]) >= {"class", "source_sha256"}
    assert record["contents"]["prompts"]["number"] == 3


def test_old_checkpoints_that_cannot_be_removed_end_nothing(cli, world, monkeypatch):
    run = half(cli, world)
    first = listed(run / "checkpoints")[0]
    remove = shutil.rmtree

    def refuse(path, *args, **kwargs):
        if Path(path).name == f"{first.name}.old.unfinished" and Path(path).exists():
            raise PermissionError(13, "Permission denied", str(path))
        return remove(path, *args, **kwargs)

    monkeypatch.setattr("maskrl.runtime.checkpoint.shutil.rmtree", refuse)
    with pytest.warns(UserWarning, match=r"the old checkpoint '.*update_00001' stays: Permission denied"):
        assert resume(cli, run).code == 0
    assert first not in listed(run / "checkpoints")  # what is left of it is not taken for a checkpoint


def flip(folder):
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "correct": not row["correct"]}) + "\n" for row in rows)
    (folder / "results.jsonl").write_text(text)


def empty(folder):
    (folder / "summary.json").write_text("{}")


@pytest.mark.parametrize("damage", [flip, empty])
def test_a_base_that_was_changed_is_refused_and_the_advice_works(cli, world, damage):
    run = half(cli, world)
    damage(run / "eval" / "geneval" / "before")
    result = resume(cli, run)
    assert result.code == 4, result
    assert len(result.err.splitlines()) == 1
    assert "delete that folder, and the base is evaluated again" in result.err
    shutil.rmtree(run / "eval" / "geneval" / "before")
    assert resume(cli, run).code == 0


def test_an_old_record_of_the_base_is_compared_with_its_row(cli, world):
    run = half(cli, world)
    rows = (run / "metrics.jsonl").read_text().splitlines()
    noted = json.loads(rows[0])["geneval"]
    summary = run / "eval" / "geneval" / "before" / "summary.json"
    saved = json.loads(summary.read_text())
    shutil.copytree(run, world.parent / "other")
    rows[0] = json.dumps({**json.loads(rows[0]), "geneval": noted + 0.5})
    (world.parent / "other" / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    assert saved["numbers"]["overall"]["mean"] == noted
    assert read_before(run, "geneval").headline.mean == noted
    with pytest.raises(TrainingError, match=rf"say {noted}, metrics.jsonl {noted + 0.5}; delete that folder"):
        read_before(world.parent / "other", "geneval")


def test_plugins_of_one_name_are_both_kept(cli, world):
    other = world.parent / "other" / "toy_run.py"
    other.parent.mkdir()
    other.write_text((world.parent / "toy_run.py").read_text() + "# another\n")
    assert begin(cli, world, f"watch.rewards.w={other}:Red", "training.updates=1").code == 0
    kept = {path.read_text() for path in (world.parent / "run" / "plugins").glob("*/toy_run.py")}
    assert kept == {other.read_text(), (world.parent / "toy_run.py").read_text()}


@pytest.mark.parametrize("change", [{"contents": 3}, {"starts": None}, {"saved": "x"}])
def test_a_record_that_is_none_is_a_line(cli, world, change):
    run = half(cli, world)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, **change}))
    result = resume(cli, run)
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "restore it, or delete it" in result.err
    (run / "run.json").unlink()
    assert resume(cli, run).code == 0
