"""Sweeps: what a file means, what is run again, what stands in the table. Cells are runs of the toy world."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import TOY, TOY_RECIPE
from toy_run import geneval_prompts

from maskrl.evals.results import read_result
from maskrl.runtime.checkpoint import listed
from maskrl.runtime.metrics import is_wall_clock, read_rows
from maskrl.sweeps.cells import cells_of, failure, finish, row_of
from maskrl.sweeps.file import flattened, read_sweep
from maskrl.sweeps.table import interval, lines
from maskrl.training.loop import train

SWEEP = """
recipe = "toy.toml"
seeds = [0, 1]
baseline = "one"
[variants.one]
[variants.fast]
training.learning_rate = 0.1
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a sweep, what its recipe reads, and in ``out`` all of its cells, run as its own processes would."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "prompts.txt").write_text("red tiles\nblue tiles\ngreen tiles\n")
    (folder / "geneval.jsonl").write_text(geneval_prompts())
    section = f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\n'
    (folder / "toy.toml").write_text(TOY_RECIPE + section)
    (folder / "mine.toml").write_text(SWEEP)
    for cell in cells_of(read_sweep(folder / "mine.toml"), folder / "out"):
        train(cell.recipe, cell.folder, resume=False, display=False)
        finish(cell)
    (folder / "out" / "sweep.toml").write_text(SWEEP)
    return folder


@pytest.fixture
def out(made, tmp_path):
    """Cells that are finished, at another place than where they were made."""
    return shutil.copytree(made / "out", tmp_path / "out")


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """A sweep, and beside it what its recipe reads; the working directory is another."""
    for path in made.glob("*.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "mine.toml"


def start(*arguments):
    command = [sys.executable, "-m", "maskrl", "sweep", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )


def numbers(run):
    rows = [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(run)]
    return rows, read_result(run / "eval" / "geneval" / "after").numbers


def test_overrides_mean_what_set_means(world):
    (world.parent / "others.txt").write_text("red tiles\n")
    world.write_text("""
recipe = "toy.toml"
seeds = [5]
[common]
training.updates = 7
grpo = { eps_high = 0.3 }
[variants.a]
"grpo.group_size" = 8
transition.name = "p_theta2"
[variants.b]
prompts.train = "others.txt"
filter = { name = "std_percentile", warmup = 2 }
eval.geneval.images_per_prompt = 3
grpo.group_size = ""
""")
    a, b = read_sweep(world).variants
    assert (a.recipe.training.updates, a.recipe.grpo.eps_high, a.recipe.grpo.group_size) == (7, 0.3, 8)
    assert a.recipe.transition.name == "p_theta2"
    assert b.recipe.prompts.train == str(world.parent / "others.txt")
    assert (b.recipe.filter.config.warmup, b.recipe.eval["geneval"].images_per_prompt) == (2, 3)
    assert b.recipe.grpo.group_size == 6  # the default in place of the recipe's 4
    assert [cell.recipe.seed for cell in cells_of(read_sweep(world), Path("x"))] == [5, 5]


def test_paths_start_from_the_sweep_and_those_of_the_recipe_from_the_recipe(world):
    folder = world.parent / "studies"
    folder.mkdir()
    (folder / "others.jsonl").write_text(geneval_prompts())
    (folder / "mine.py").write_text("from toy_run import Red\n\n\nclass Mine(Red):\n    pass\n")
    (folder / "study.toml").write_text("""
recipe = "../toy.toml"
seeds = [0]
[variants.key]
reward.name = "mine.py:Mine"
eval.geneval.prompts = "others.jsonl"
[variants.table]
reward = { name = "mine.py:Mine" }
generator.checkpoint = "."
""")
    key, table = (variant.recipe for variant in read_sweep(folder / "study.toml").variants)
    assert key.reward.name == table.reward.name == f"{folder / 'mine.py'}:Mine"
    assert key.eval["geneval"].config.prompts == str(folder / "others.jsonl")
    assert Path(table.generator.config.checkpoint).resolve() == folder
    assert Path(key.prompts.train).resolve() == world.parent / "prompts.txt"


def test_the_sweep_of_the_quickstart_is_one(tmp_path):
    page = Path(__file__).parents[1] / "docs" / "quickstart.md"
    (text,) = re.findall(r"```toml\n(# steps.toml\n.+?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "steps.toml").write_text(text)
    cosine, constant, ar = read_sweep(tmp_path / "steps.toml").variants
    assert {variant.recipe.training.updates for variant in (cosine, constant, ar)} == {60}
    assert (cosine.recipe.training.lr_schedule, constant.recipe.training.lr_schedule) == (
        "cosine",
        "constant",
    )
    assert ar.recipe.transition.name == "ar"


def test_a_table_with_a_name_takes_the_place_of_a_section():
    table = {"reward": {"name": "geneval", "partial": True}, "grpo": {"kl": "k3", "x": {"y": 1}}, "lora": ""}
    wanted = ['reward={ "name" = "geneval", "partial" = true }', 'grpo.kl="k3"', "grpo.x.y=1", "lora="]
    assert list(flattened(table)) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[0, 1]", "[0, 0]"), "seeds: one stands there twice"),
        (("[0, 1]", "[]"), "seeds: "),
        (('baseline = "one"', 'baseline = "on"'), "baseline: there is no variant 'on'; did you mean 'one'?"),
        (("seeds =", "seed ="), "seed: unknown key; did you mean 'seeds'?"),
        (("training.learning_rate", "seed"), "fast: seed is the sweep's own"),
        (("training.learning_rate", "training.rate"), "variants.fast: "),
        (("toy.toml", "no.toml"), "there is no recipe"),
        (("[variants.one]", "[variants.one"), "is no TOML"),
        (("[variants.fast]", '[variants."../fast"]'), "variants"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(cli, world, change, said):
    world.write_text(SWEEP.replace(*change))
    result = cli("sweep", world)
    assert (result.code, "Traceback" in result.err) == (2, False)
    assert said in result.err
    assert not Path("sweeps").exists()


def test_there_must_be_a_file_and_a_folder_of_its_own(cli, world, tmp_path):
    assert "there is no sweep 'none.toml'" in cli("sweep", "none.toml").err
    done = cli("sweep", world, "--out", tmp_path)
    assert (done.code, "is not empty and holds no sweep; choose another --out" in done.err) == (2, True)


def test_finished_cells_are_not_run_again(cli, world, out):
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed_*/**/*") if path.is_file()}
    done = cli("sweep", world, "--out", out)
    assert (done.code, "4 runs: 4 finished, 0 to go" in done.out) == (0, True), done.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(row["variant"], row["seed"], row["status"]) for row in rows] == [
        *(("one", 0, "finished"), ("fast", 0, "finished")),
        *(("one", 1, "finished"), ("fast", 1, "finished")),
    ]
    fast = rows[3]
    assert (fast["recipe"]["seed"], fast["recipe"]["training"]["learning_rate"]) == (1, 0.1)
    assert fast["overrides"] == ["training.learning_rate=0.1"]
    assert {"commit", "versions", "machine"} < fast.keys()
    found = read_result(out / "fast" / "seed_1" / "eval" / "geneval" / "after").numbers["overall"]
    assert fast["after"]["geneval"]["overall"] == {"mean": found.mean, "se": found.se}
    seconds = [row["seconds_total"] for row in read_rows(out / "fast" / "seed_1") if row["kind"] == "update"]
    assert min(seconds) <= fast["seconds_per_update"] <= max(seconds)


def test_runs_of_several_commits_are_told(cli, world, out):
    assert "several commits" not in cli("sweep", world, "--out", out).out
    path = out / "one" / "seed_0.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "commit": "0123456789ab"}))
    assert "of several commits of maskrl: 0123456789ab, " in cli("sweep", world, "--out", out).out


def test_torchrun_is_refused(cli, world, out, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = cli("sweep", world, "--out", out)
    assert (done.code, "leave out torchrun" in done.err) == (2, True)


def test_json_is_all_that_stdout_has_and_show_runs_nothing(cli, world, out):
    done = cli("sweep", world, "--out", out, "--json")
    found = json.loads(done.out)
    assert [row["variant"] for row in found["cells"]] == ["one", "fast", "one", "fast"]
    line = next(
        line for line in found["table"] if (line["variant"], line["number"]) == ("fast", "geneval counting")
    )
    after = [row["after"]["geneval"]["counting"]["mean"] for row in found["cells"]]
    assert line["after"]["mean"] == pytest.approx((after[1] + after[3]) / 2)
    assert line["against"]["mean"] == pytest.approx((after[1] - after[0] + after[3] - after[2]) / 2)
    world.write_text(SWEEP.replace("[0, 1]", "[0, 1, 2]"))
    shown = cli("sweep", world, "--out", out, "--show")
    assert (shown.code, "1 open" in shown.out) == (0, True), shown.err
    assert not (out / "one" / "seed_2").exists()


def test_a_changed_variant_is_refused_by_what_has_changed_and_the_advice_works(cli, world, out, tmp_path):
    def refused(said):
        done = cli("sweep", world, "--out", out)
        assert (done.code, done.out) == (2, ""), done.err
        assert "variant 'fast' is another than the one whose cells are in" in done.err
        assert said in done.err

    world.write_text(SWEEP.replace("0.1", "0.2"))
    refused("training.learning_rate was 0.1 and is 0.2")
    world.write_text(SWEEP + "training.updates = 3\n")
    refused("training.updates was 2 and is 3")
    world.write_text(SWEEP)
    for name in ("prompts.txt", "geneval.jsonl"):
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text.replace("red tiles", "no tiles").replace('"counting 0 1"', '"counting"'))
        refused("sha256")
        path.write_text(text)
    assert cli("sweep", world, "--out", out).code == 0  # put back
    world.write_text(SWEEP.replace("0.1", "0.2").replace("variants.fast", "variants.faster"))
    assert "1 open" not in cli("sweep", world, "--out", out, "--show").err  # another name
    (tmp_path / "moved").mkdir()
    for name in ("toy.toml", "prompts.txt", "geneval.jsonl"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    moved = tmp_path / "moved" / "mine.toml"
    moved.write_text(SWEEP)
    assert cli("sweep", moved, "--out", out).code == 0  # the same files at another place


def test_a_damaged_row_is_one_line_and_its_advice_works(cli, world, out):
    row = out / "one" / "seed_0.json"
    row.write_text("{")
    done = cli("sweep", world, "--out", out)
    assert (done.code, "is damaged" in done.err, "Traceback" in done.err) == (4, True, False)
    row.unlink()
    assert row_of(cells_of(read_sweep(world), out)[0])["status"] == "open"


def test_two_sweeps_do_not_share_a_folder(cli, world, out):
    held = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from maskrl import files\n"
            f"with files.owned(Path({str(out)!r})): print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with held:
        held.stdout.readline()
        done = cli("sweep", world, "--out", out)
        assert (done.code, f"is being written by process {held.pid}" in done.err) == (4, True)
        assert cli("sweep", world, "--out", out, "--show").code == 0
        held.stdin.close()


def test_intervals_are_students():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(4.30265273 / 3**0.5))
    five = interval([0.0, 0.0, 0.0, 0.0, 5.0])
    assert five.half == pytest.approx(2.77644511 * 1.0)  # a standard error of 1
    assert (interval([7.0]).mean, interval([7.0]).half, interval([]).mean) == (7.0, None, None)


def cell(variant, seed, before, after, seconds=1.0):
    def numbers(value):
        return {"e": {"overall": {"mean": value, "se": 0.1}}}

    return {
        **{"variant": variant, "seed": seed, "status": "finished", "seconds_per_update": seconds},
        **{"before": numbers(before), "after": numbers(after)},
    }


def test_variants_are_paired_by_seed_with_the_baseline():
    rows = [
        *(cell("base", 0, 0.1, 0.3), cell("base", 1, 0.1, 0.7), cell("base", 2, 0.1, 0.9)),
        *(cell("x", 0, 0.1, 0.4, 2.0), cell("x", 1, 0.1, 0.8, 2.0)),
        {"variant": "x", "seed": 2, "status": "failed", "error": "why", "log": "x"},
    ]
    found = {(line.variant, line.number): line for line in lines(rows, "base")}
    x = found["x", "e"]
    assert (x.seeds, x.after.mean) == ((0, 1), pytest.approx(0.6))
    assert (x.against.mean, x.against.half) == (pytest.approx(0.1), pytest.approx(0, abs=1e-9))
    assert (x.gain.mean, x.before.half) == (pytest.approx(0.5), pytest.approx(0, abs=1e-9))
    assert found["base", "e"].against.mean is None
    assert found["x", "seconds per update"].against.mean == pytest.approx(1.0)
    assert all(line.against.mean is None for line in lines(rows, None))


def test_each_at_its_best_guidance_is_a_number_of_its_own(cli, world, out):
    second = f'[eval.other]\nname = "geneval"\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nguidance = 4.0\n'
    toy = world.with_name("toy.toml")
    toy.write_text(toy.read_text() + second)
    world.write_text('recipe = "toy.toml"\nseeds = [4]\n[variants.several]\n')
    (cell,) = cells_of(read_sweep(world), out)
    train(cell.recipe, cell.folder, resume=False, display=False)
    row = finish(cell)
    (best,) = row["best_guidance"]
    for when in ("before", "after"):
        found = {label: row[when][label]["overall"]["mean"] for label in ("geneval", "other")}
        assert best[when]["mean"] == max(found.values())
        assert best["guidance"][when] == {"geneval": 1.0, "other": 4.0}[max(found, key=found.get)]
    by_number = {line.number: line for line in lines([row], None)}
    line = by_number["geneval at its best guidance"]
    assert (line.before.mean, line.after.mean) == (best["before"]["mean"], best["after"]["mean"])
    del row["best_guidance"]  # as a row of before there was this
    assert "geneval at its best guidance" not in {line.number for line in lines([row], None)}
    assert "geneval" in {line.number for line in lines([row], None)}


def test_why_a_process_ended_is_its_own_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("maskrl: an old reason\nnew\nmaskrl: stopping after this update\nmaskrl: a\nmaskrl: b\n")
    start = log.read_text().index("new")
    assert failure(log, start, 2) == "a; b (exit code 2)"
    log.write_text("Traceback\n  File\nValueError: x\n")
    assert failure(log, 0, 1) == "ValueError: x (exit code 1)"
    log.write_text("")
    assert failure(log, 0, -9) == "it said nothing (exit code -9)"


@pytest.mark.slow
def test_a_failing_cell_stops_no_other_and_is_run_again(cli, world, tmp_path, monkeypatch):
    world.write_text(f"""
recipe = "toy.toml"
seeds = [3]
baseline = "one"
[variants.bad]
reward = {{ name = "{TOY}:Red", after = 2 }}
[variants.one]
""")
    out = tmp_path / "out"
    done = cli("sweep", world, "--out", out, "--jobs", 1)
    assert done.code == 4
    assert "1 of 2 runs have failed; the same command runs them again" in done.err
    assert re.search(r"failed: bad, seed 3: update 1: .*finite.*; log: ", done.out), done.out
    assert re_row(done.out, "bad") == ["bad", "1 failed"]
    one = out / "one" / "seed_3"
    assert json.loads(one.with_suffix(".json").read_text())["machine"]["threads"] == len(
        os.sched_getaffinity(0)
    )
    alone = tmp_path / "alone"
    train(cells_of(read_sweep(world), out)[1].recipe, alone, resume=False, display=False)
    assert numbers(one)[1] == numbers(alone)[1]  # as `maskrl train` does it
    monkeypatch.setenv("TOY_HARMLESS", "1")
    again = cli("sweep", world, "--out", out, "--jobs", 1)
    assert (again.code, "1 finished, 1 to go" in again.out) == (0, True), again.err
    assert "bad, seed 3: goes on" in again.out
    assert [path.name for path in listed(out / "bad" / "seed_3" / "checkpoints")][-1] == "update_00002"


def re_row(out, variant):
    rows = [[cell.strip() for cell in line.split("│")] for line in out.splitlines()]
    return next([cell for cell in row if cell][:2] for row in rows if variant in row and "failed" in str(row))


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on(world, tmp_path):
    world.write_text(f"{SWEEP.replace('[0, 1]', '[0]')}[common]\ntraining.updates = 100_000\n")
    out = tmp_path / "out"
    cells = cells_of(read_sweep(world), out)

    def end_while(number, said):
        """Signal a sweep once both logs say something; return its output and exit code, and what its cells had made."""
        with start(world, "--out", out, "--jobs", 2) as sweep:
            try:
                wait(lambda: all(cell.log.exists() and said in cell.log.read_text() for cell in cells))
                children = psutil.Process(sweep.pid).children(recursive=True)
                threads = {child.environ()["OMP_NUM_THREADS"] for child in children}
                assert (len(children), threads) == (2, {str(max(1, len(os.sched_getaffinity(0)) // 2))})
                sweep.send_signal(number)
                printed = sweep.communicate(timeout=300)[0]
                wait(lambda: not any(map(is_alive, children)))
            finally:
                sweep.kill()
        saved = [int(listed(cell.folder / "checkpoints")[-1].name[7:]) for cell in cells]
        return printed, sweep.returncode, saved

    _, code, saved = end_while(signal.SIGKILL, "update 1/")
    assert (code, all(0 < made < 100_000 for made in saved)) == (-9, True)
    printed, code, later = end_while(signal.SIGTERM, "continuing from")
    assert (code, "stopped; the same command goes on" in printed) == (143, True)
    assert printed.count("goes on (log") == 2
    assert all(now >= made for now, made in zip(later, saved, strict=True))
    assert [row_of(cell)["status"] for cell in cells] == ["open", "open"]


def is_alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait(condition):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
