"""Whole runs of a toy: what they write, and that a killed one continues as if nothing had happened."""

import signal
import sys
from pathlib import Path

import processes
import pytest
import torch
from rich.console import Console
from toy_run import ToyGenerator, geneval_prompts

from maskrl.errors import RecipeError, TrainingError
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed, load
from maskrl.runtime.metrics import is_wall_clock, read_rows
from maskrl.sections import TrainingConfig
from maskrl.training.display import Display, duration, sparkline
from maskrl.training.loop import train
from maskrl.training.schedule import learning_rate, prompts_of
from maskrl.training.setup import set_up
from maskrl.types import Prompt, Stream

TOY = Path(__file__).with_name("toy_run.py")

RECIPE = f"""
seed = 3
[generator]
name = "{TOY}:ToyGenerator"
[transition]
name = "p_theta1"
threshold = "kept_set"
[reward]
name = "{TOY}:Red"
[filter]
name = "std_percentile"
warmup = 4
percentile = 30
[reducer]
name = "none"
[grpo]
group_size = 4
num_updates = 2
[prompts]
train = "prompts.txt"
[training]
updates = 5
prompts_per_update = 3
micro_batch = 7
learning_rate = 0.01
warmup_updates = 2
lr_schedule = "cosine"
weight_decay = 0.01
device = "cpu"
[checkpoint]
every = 2
[tracking]
tensorboard = false
samples_every = 2
sample_prompts = ["red", "a long text that does not fit the width of a single tile of the sheet"]
[eval.geneval]
prompts = "geneval.jsonl"
detector = "{TOY}:Tiles"
images_per_prompt = 2
every = 2
subset = 1
batch = 5
"""

TRAIN = """
import sys
from pathlib import Path
import torch
from maskrl.recipe import read_recipe
from maskrl.training.loop import train
torch.set_num_threads(1)
folder, run, *overrides = sys.argv[1:]
train(read_recipe(f"{folder}/recipe.toml", overrides), Path(run), resume=False, display=False)
"""


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "prompts.txt").write_text("\n".join(f"prompt {i}" for i in range(7)))
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    return tmp_path


def recipe_of(folder, *overrides):
    return read_recipe(folder / "recipe.toml", overrides)


def run_process(folder, run, *overrides):
    command = [sys.executable, "-W", "error", "-c", TRAIN, folder, run, *overrides]
    return processes.run(command, timeout=600)


def comparable(run):
    return [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(run)]


def numbers(row):
    return {key: value for key, value in row.items() if not isinstance(value, str)}


def weights(run):
    return load(listed(run / "checkpoints")[-1]).tensors


def assert_same_weights(run, other):
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_run_leaves_everything_in_its_folder(folder):
    run = folder / "run"
    result = train(recipe_of(folder, "tracking.tensorboard=true"), run, resume=False, display=False)
    kinds = [(row["kind"], row["update"], row.get("when")) for row in read_rows(run)]
    updates = [("update", u, None) for u in range(1, 6)]
    assert kinds == [
        ("eval", 0, "before"),
        *updates[:2],
        ("eval", 2, "during"),
        *updates[2:4],
        ("eval", 4, "during"),
        updates[4],
        ("eval", 5, "after"),
    ]
    assert [path.name for path in listed(run / "checkpoints")] == ["update_00004", "update_00005"]
    pictures = {path.name for path in (run / "samples").iterdir()}
    assert pictures == {"before.png", "update_00002.png", "update_00004.png", "after.png", "before_after.png"}
    assert list((run / "tensorboard").iterdir())
    assert result.picture == run / "samples" / "before_after.png"
    assert result.updates == 5
    assert result.before["geneval"].result.images == result.after["geneval"].result.images == 24
    row = next(row for row in read_rows(run) if row["kind"] == "update")
    wanted = (
        "reward_mean reward_std clip_fraction ratio_min ratio_max resample_rate floored_fraction entropy kl"
    )
    wanted += " grad_norm learning_rate seconds_rollout seconds_reward seconds_update seconds_total"
    assert set(wanted.split()) <= row.keys()
    assert row["learning_rate"] == 0.005


def test_training_raises_the_reward(folder):
    run = folder / "run"
    overrides = ("training.updates=40", "eval=", "training.learning_rate=0.02", "grpo.group_size=8")
    result = train(recipe_of(folder, *overrides), run, resume=False, display=False)
    rewards = [row["reward_mean"] for row in read_rows(run)]
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 1
    assert result.before == result.after == {}


@pytest.mark.parametrize(
    ("reward_call", "updates_made"), [pytest.param(1, 0, marks=pytest.mark.slow), (6, 3)]
)
def test_a_killed_run_continues_exactly(folder, reward_call, updates_made, monkeypatch):
    whole, killed = folder / "whole", folder / "killed"
    train(recipe_of(folder), whole, resume=False, display=False)
    overrides = (f"reward.after={reward_call}", "reward.then=SIGKILL")
    assert run_process(folder, killed, *overrides).returncode == -signal.SIGKILL
    assert sum(row["kind"] == "update" for row in read_rows(killed)) == updates_made
    finish(folder, killed, overrides, monkeypatch)
    assert comparable(killed) == comparable(whole)
    assert_same_weights(killed, whole)


def finish(folder, run, overrides, monkeypatch):
    """Resume a run of a component that stops it, without the stop."""
    monkeypatch.setenv("TOY_HARMLESS", "1")
    train(recipe_of(folder, *overrides), run, resume=True, display=False)
    monkeypatch.delenv("TOY_HARMLESS")


@pytest.mark.parametrize(("name", "error"), [("SIGTERM", SystemExit), ("SIGINT", KeyboardInterrupt)])
def test_a_signal_waits_for_the_update_and_saves(folder, name, error, monkeypatch):
    whole, stopped = folder / "whole", folder / "stopped"
    train(recipe_of(folder), whole, resume=False, display=False)
    overrides = ("reward.after=1", f"reward.then={name}")
    with pytest.raises(error) as caught:
        train(recipe_of(folder, *overrides), stopped, resume=False, display=False)
    assert getattr(caught.value, "code", 143) == 143
    assert [path.name for path in listed(stopped / "checkpoints")] == ["update_00001"]
    finish(folder, stopped, overrides, monkeypatch)
    assert comparable(stopped) == comparable(whole)


def test_a_signal_during_an_evaluation_loses_nothing(folder, monkeypatch):
    whole, stopped = folder / "whole", folder / "stopped"
    every = "checkpoint.every=5"
    train(recipe_of(folder, every), whole, resume=False, display=False)
    overrides = (every, f"eval.geneval.detector={TOY}:StoppingTiles")
    with pytest.raises(SystemExit):
        train(recipe_of(folder, *overrides), stopped, resume=False, display=False)
    assert [path.name for path in listed(stopped / "checkpoints")] == ["update_00002"]
    finish(folder, stopped, overrides, monkeypatch)
    assert comparable(stopped) == comparable(whole)


def test_resuming_a_finished_run_changes_nothing(folder):
    run = folder / "run"
    first = train(recipe_of(folder), run, resume=False, display=False)
    rows, tensors = comparable(run), weights(run)
    second = train(recipe_of(folder), run, resume=True, display=False)
    assert comparable(run) == rows
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in weights(run).items())
    assert second.before["geneval"].rows == first.before["geneval"].rows
    assert second.after["geneval"].rows == first.after["geneval"].rows


def test_a_damaged_checkpoint_is_one_line_and_names_the_older_one(folder):
    run = folder / "run"
    train(recipe_of(folder), run, resume=False, display=False)
    state = run / "checkpoints" / "update_00005" / "training.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(
        TrainingError, match=r"update_00005.*training\.safetensors.*update_00004.*intact"
    ) as caught:
        train(recipe_of(folder), run, resume=True, display=False)
    assert "\n" not in str(caught.value)


def test_micro_batches_change_nothing(folder):
    rows = []
    for name, micro, rollout, reward in (("a", 1, 1, 1), ("b", 7, 5, 2), ("c", 100, 100, 100)):
        sizes = (
            f"training.micro_batch={micro}",
            f"training.rollout_batch={rollout}",
            f"training.reward_batch={reward}",
        )
        double = ("generator.double=true", "eval=", "training.updates=3")
        train(recipe_of(folder, *sizes, *double), folder / name, resume=False, display=False)
        rows.append([numbers(row) for row in comparable(folder / name)])
    assert len(rows[0]) == 3
    for other in rows[1:]:
        for ours, theirs in zip(rows[0], other, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_a_reward_that_is_nan_stops_the_run_and_loses_no_update(folder):
    run = folder / "run"
    with pytest.raises(TrainingError, match="nan"):
        train(recipe_of(folder, "reward.after=6"), run, resume=False, display=False)
    assert [path.name for path in listed(run / "checkpoints")] == ["update_00002", "update_00003"]


def test_an_evaluation_that_cannot_be_is_refused_before_any_work(folder):
    lines = (folder / "geneval.jsonl").read_text().splitlines()
    (folder / "geneval.jsonl").write_text("\n".join(line for line in lines if "color_attr" not in line))
    with pytest.raises(TrainingError, match="color_attr"):
        train(recipe_of(folder), folder / "run", resume=False, display=False)
    assert not (folder / "run").exists()


def test_more_steps_than_tokens_is_refused_before_any_work(folder):
    run = folder / "run"
    with pytest.raises(RecipeError, match="num_steps = 7"):
        train(recipe_of(folder, "grpo.num_steps=7"), run, resume=False, display=False)
    with pytest.raises(RecipeError, match="num_steps = 9"):
        train(recipe_of(folder, "eval.geneval.num_steps=9"), run, resume=False, display=False)
    assert not run.exists()


def test_the_time_budget_counts_over_resumes(folder):
    run = folder / "run"
    recipe = recipe_of(folder, "training.max_seconds=0.000001")
    for resume in (False, True):
        assert train(recipe, run, resume=resume, display=False).updates == 1
    assert [path.name for path in listed(run / "checkpoints")] == ["update_00001"]


def test_the_reference_of_the_kl_term_survives_a_resume(folder, monkeypatch):
    beta = ("grpo.kl_coef=0.5", "eval=")
    train(recipe_of(folder, *beta), folder / "whole", resume=False, display=False)
    stop = (*beta, "reward.after=4", "reward.then=SIGTERM")
    with pytest.raises(SystemExit):
        train(recipe_of(folder, *stop), folder / "stopped", resume=False, display=False)
    finish(folder, folder / "stopped", stop, monkeypatch)
    assert comparable(folder / "stopped") == comparable(folder / "whole")
    assert max(row["kl"] for row in read_rows(folder / "whole")) > 0


def test_the_saved_generator_is_the_trained_one(folder):
    run = folder / "run"
    train(recipe_of(folder, "eval="), run, resume=False, display=False)
    saved = listed(run / "checkpoints")[-1]
    loaded = ToyGenerator(ToyGenerator.Config(checkpoint=str(saved / "generator")))
    for name, parameter in loaded.module.named_parameters():
        assert torch.equal(parameter, weights(run)[f"parameter/{name}"])


def test_bf16_keeps_fp32_weights(folder):
    run = folder / "run"
    train(recipe_of(folder, "training.dtype=bf16", "eval="), run, resume=False, display=False)
    assert {tensor.dtype for tensor in weights(run).values()} == {torch.float32}
    full = folder / "full"
    train(recipe_of(folder, "eval="), full, resume=False, display=False)
    assert comparable(run) != comparable(full)


def test_prompts_are_drawn_in_epochs():
    prompts, stream = [Prompt(str(i)) for i in range(7)], Stream(5)
    drawn = [prompt.text for update in range(7) for prompt in prompts_of(update, prompts, 3, stream)]
    for epoch in range(3):
        assert sorted(drawn[epoch * 7 : epoch * 7 + 7]) == [str(i) for i in range(7)]
    assert drawn[:7] != drawn[7:14]
    assert len(prompts_of(0, prompts, 20, stream)) == 20


@pytest.mark.parametrize(("schedule", "last"), [("constant", 1.0), ("linear", 0.1), ("cosine", 0.0245)])
def test_the_learning_rate_warms_up_and_decays(schedule, last):
    config = TrainingConfig(
        updates=15, prompts_per_update=1, learning_rate=1.0, warmup_updates=5, lr_schedule=schedule
    )
    rates = [learning_rate(update, config) for update in range(15)]
    assert rates[:5] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert rates[5] == 1.0
    assert rates[-1] == pytest.approx(last, abs=1e-3)


SHOWN = ("reward_mean", "reward_std", "clip_fraction", "ratio_min", "ratio_max", "resample_rate")
MORE = ("floored_fraction", "grad_norm", "entropy", "diversity_tokens", "diversity_pixels")
METRICS = dict.fromkeys((*SHOWN, *MORE), 0.25)
METRICS |= {f"seconds_{part}": 2.0 for part in ("rollout", "reward", "update", "total")}
METRICS |= {"kept_fraction": 0.75, "skipped": 0.0}


def test_the_panel_and_the_lines_show_the_numbers(capsys):
    for terminal in (True, False):
        with Display(Console(force_terminal=terminal, width=100), updates=50) as display:
            display.update(1, METRICS)
            display.stage("GenEval during", 3, 9)
            display.update(2, METRICS)
        shown = capsys.readouterr().out
        assert "0.2500" in shown
        assert "1 min 3" in shown
        assert ("resample rate" in shown) == terminal
        assert ("75.0% kept" if terminal else "kept 75%") in shown


def test_numbers_for_people():
    assert [duration(seconds) for seconds in (5, 185, 7800)] == ["5 s", "3 min 05 s", "2 h 10 min"]
    assert sparkline([0.0, 0.5, 1.0]) == "▁▄█"
    assert sparkline([1.0, 1.0]) == "▁▁"


def test_what_takes_a_while_is_said_before_it_begins(toy_recipe, tmp_path, cli):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    changes = [f"eval.geneval.prompts={tmp_path}/geneval.jsonl", f"eval.geneval.detector={TOY}:Tiles"]
    result = cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run", *(f"--set={c}" for c in changes))
    lines = result.out.splitlines()
    said = [
        "loading PyTorch, the generator and the reward",
        "evaluating the base model",
        "painting the sample prompts",
        "update 1 of 2 is under way",
    ]
    places = [lines.index(line) for line in said]
    assert places == sorted(places)
    assert result.code == 0


def test_the_panel_says_what_is_under_way(capsys):
    with Display(Console(force_terminal=True, width=100), updates=50) as display:
        display.now("painting the sample prompts")
    shown = capsys.readouterr().out
    assert "painting the sample prompts" in shown


NOISY = ("grpo.num_updates=2", "training.dtype=bf16")


def test_several_passes_with_a_probability_that_jumps_are_warned_of(folder):
    with pytest.warns(
        UserWarning, match=r"'p_theta1' jumps .* in bf16 they are noise; set transition.threshold"
    ):
        set_up(recipe_of(folder, "transition.threshold=current", *NOISY))
    with pytest.warns(UserWarning, match=r"'p_theta1' jumps .* or at least grpo\.dual_clip = 3"):
        set_up(recipe_of(folder, "transition.threshold=current", "grpo.num_updates=2"))


@pytest.mark.parametrize(
    "advice",
    [
        (*NOISY, "transition.threshold=kept_set"),
        (*NOISY, "transition.name=p_theta2", "transition.threshold="),
        ("grpo.num_updates=1", "training.dtype=bf16"),
        ("grpo.num_updates=2", "grpo.dual_clip=3.0"),
    ],
)
def test_every_way_out_that_the_message_names_is_one(folder, advice):
    train(
        recipe_of(folder, "transition.threshold=current", *advice),
        folder / "run",
        resume=False,
        display=False,
    )
