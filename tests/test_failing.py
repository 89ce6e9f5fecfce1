"""A run under fire: whatever fails, the updates made before are saved, and what is not sound never is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskrl.cli.output import Sturdy
from maskrl.grpo.learn import _check_weights
from maskrl.runtime.checkpoint import listed, load
from maskrl.runtime.metrics import is_wall_clock, read_rows

TOY = Path(__file__).with_name("toy_run.py")
FAILS = """
import os, signal, sys
from maskrl.component import ComponentConfig
from maskrl.interfaces import RewardModel

class Fails(RewardModel):
    class Config(ComponentConfig):
        at: int
        how: str

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def score(self, images, prompts):
        self.calls += 1
        if os.environ.get("HARMLESS") is None and self.calls == self.config.at:
            exec(self.config.how)
        return images[:, 0].mean(dim=(1, 2))
"""


@pytest.fixture
def world(toy_recipe, tmp_path):
    (tmp_path / "fails.py").write_text(FAILS)
    text = (
        toy_recipe.read_text().replace("updates = 2", "updates = 6").replace(f"{TOY}:Red", "fails.py:Fails")
    )
    toy_recipe.write_text(text)
    return toy_recipe


def start(cli, world, how, *changes, at=4):
    settings = [f"reward.at={at}", f"reward.how={how!r}", "checkpoint.every=100", *changes]
    return cli("train", "--recipe", world, "--run", world.parent / "run", *(f"--set={s}" for s in settings))


def comparable(run):
    return [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(run)]


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("raise ConnectionError('the judge is away')", 3),
        ("raise ValueError", 3),
        ("sys.exit(0)", 3),
        ("import torch; raise torch.OutOfMemoryError('tried to allocate 9 GiB')", 4),
        ("images.data.fill_(float('nan'))", 4),
        ("raise KeyboardInterrupt", None),
    ],
)
def test_a_reward_that_fails_loses_no_update(cli, world, how, code, monkeypatch):
    run = world.parent / "run"
    if code is None:
        with pytest.raises(KeyboardInterrupt):
            cli_raising(world, how)
    else:
        result = start(cli, world, how)
        assert result.code == code, result.err
        assert len(result.err.splitlines()) == 1
        assert "update 3" in result.err or "Fails" in result.err
    assert [path.name for path in listed(run / "checkpoints")] == ["update_00003"]
    monkeypatch.setenv("HARMLESS", "1")
    assert cli("train", "--run", run, "--resume").code == 0
    rest = comparable(run)
    assert cli("train", "--recipe", world, "--run", world.parent / "whole",
               "--set=reward.at=0", "--set=reward.how=''", "--set=checkpoint.every=100").code == 0  # fmt: skip
    assert rest == comparable(world.parent / "whole")


def cli_raising(world, how):
    from maskrl.recipe import read_recipe
    from maskrl.training.loop import train

    changes = ["reward.at=4", f"reward.how={how!r}", "checkpoint.every=100"]
    train(read_recipe(world, changes), world.parent / "run", resume=False, display=False)


def test_a_half_learnt_update_is_not_saved(cli, world, monkeypatch):
    """With several steps an update, one that fails after the first leaves nothing sound."""
    from maskrl.grpo import learn as learning

    steps = []
    real = learning._step

    def step(learner, update):
        steps.append(update)
        if len(steps) == 6:
            raise RuntimeError("the second step of the third update")
        return real(learner, update)

    monkeypatch.setattr(learning, "_step", step)
    with pytest.raises(RuntimeError, match="second step"):
        start_raising(world, "training.updates=6", "grpo.num_updates=2", "transition.threshold=kept_set")
    assert listed(world.parent / "run" / "checkpoints") == []


def start_raising(world, *changes):
    from maskrl.recipe import read_recipe
    from maskrl.training.loop import train

    quiet = ["reward.at=0", "reward.how=''", "checkpoint.every=100"]
    train(read_recipe(world, [*quiet, *changes]), world.parent / "run", resume=False, display=False)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_every_signal_that_asks_to_stop_finishes_the_update_and_says_where_it_is_saved(cli, world, name):
    result = start(cli, world, f"os.kill(os.getpid(), signal.{name})", at=2)
    assert result.code == 128 + getattr(signal, name)
    run = world.parent / "run"
    assert [path.name for path in listed(run / "checkpoints")] == ["update_00002"]
    assert f"stopped after update 2; --resume goes on from {run}" in result.out


def test_weights_that_are_not_finite_end_the_run_and_are_never_saved(cli, world):
    result = start(cli, world, "", "training.learning_rate=1e30", "training.max_grad_norm=1e30", at=0)
    assert result.code == 4
    assert any(word in result.err for word in ("not finite", "has norm", "is nan"))
    for checkpoint in listed(world.parent / "run" / "checkpoints"):
        assert all(t.isfinite().all() for t in load(checkpoint).tensors.values() if t.is_floating_point())


def test_the_parameter_that_is_not_finite_is_named():
    from toy import toy, toy_halves

    from maskrl.errors import TrainingError

    generator = toy()
    halves = toy_halves(generator)
    params = list(generator.module.parameters())
    _check_weights(halves.learner, params, 3)
    with torch.no_grad():
        generator.module.head.bias[1] = torch.inf
    with pytest.raises(
        TrainingError, match=r"update 3: the step has left weights .* not finite in 'head\.bias'"
    ):
        _check_weights(halves.learner, params, 3)


def test_a_generator_that_cannot_be_saved_is_known_before_the_first_update(cli, world):
    (world.parent / "unsaved.py").write_text(
        f"import sys\nsys.path.insert(0, {str(TOY.parent)!r})\nimport toy_run\n"
        "class Unsaved(toy_run.ToyGenerator):\n    def save(self, folder): raise OSError(30, 'Read-only file system')\n"
    )
    result = start(cli, world, "", f"generator.name={world.parent}/unsaved.py:Unsaved", at=0)
    assert result.code == 4
    assert "this run could not be saved in '" in result.err
    assert "Read-only file system" in result.err
    assert [row for row in read_rows(world.parent / "run") if row["kind"] == "update"] == []


def test_an_eight_bit_optimizer_is_saved_and_resumed_exactly(cli, world, tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs maskrl[8bit], which [test] brings")
    (tmp_path / "large.py").write_text(
        f"import sys\nsys.path.insert(0, {str(TOY.parent)!r})\nimport toy_run, torch\nfrom torch import nn\n"
        "class Large(toy_run.ToyGenerator):\n"
        "    def __init__(self, config):\n"
        "        super().__init__(config)\n"
        "        body = self.module.body\n"
        "        with torch.random.fork_rng():\n"
        "            torch.manual_seed(0)\n"
        "            self.module.body = nn.Sequential(nn.Linear(112, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(),\n"
        "                                             nn.Linear(64, 24)).eval()\n"
        "        if config.checkpoint is not None:\n"
        "            from safetensors.torch import load_file\n"
        "            self.module.load_state_dict(load_file(config.checkpoint + '/model.safetensors'))\n"
    )
    changes = [
        f"generator.name={tmp_path}/large.py:Large",
        "training.optimizer=adamw_8bit",
        "checkpoint.every=1",
    ]
    common = ["--set=reward.at=0", "--set=reward.how=''", *(f"--set={c}" for c in changes)]
    assert (
        cli("train", "--recipe", world, "--run", tmp_path / "whole", *common, "--set=training.updates=4").code
        == 0
    )
    half = cli("train", "--recipe", world, "--run", tmp_path / "half", *common, "--set=training.updates=2")
    assert half.code == 0, half.err
    assert cli("train", "--run", tmp_path / "half", "--resume", "--set=training.updates=4").code == 0
    whole, resumed = (load(listed(tmp_path / n / "checkpoints")[-1]).tensors for n in ("whole", "half"))
    assert any(t.dtype == torch.uint8 for t in whole.values()), "no moment is kept in 8 bits"
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


COMMAND = [sys.executable, "-m", "maskrl", "train"]


@pytest.mark.parametrize(
    "output",
    ["full disk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("closed pipe", "ascii"))],
)
def test_output_that_cannot_be_written_ends_no_run(world, output):
    run = world.parent / "run"
    command = [
        *COMMAND,
        "--recipe",
        str(world),
        "--run",
        str(run),
        "--set=reward.at=0",
        "--set=reward.how=''",
    ]
    environment = {**os.environ, "PYTHONPATH": str(TOY.parents[1]), "PYTHONIOENCODING": "ascii"}
    if output == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full" if output == "full disk" else os.devnull, os.O_WRONLY)
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=environment, timeout=200, check=False
    )
    os.close(writing)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert [row["update"] for row in read_rows(run) if row["kind"] == "update"] == [1, 2, 3, 4, 5, 6]


def test_what_ascii_cannot_say_is_replaced(tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        Sturdy(stream).write("0.354 ± 0.014")
    assert (tmp_path / "out").read_text() == "0.354 ? 0.014"


LONG = "n" * 300


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("train", "--recipe", "toy.toml", "--run", LONG), "File name too long"),
        (("train", "--recipe", LONG), "File name too long"),
        (("train", "--run", LONG, "--resume"), "File name too long"),
        (("eval", "geneval", "--run", LONG), "File name too long"),
        (("train", "--recipe", "toy.toml", "--run", "circle/run"), "Too many levels of symbolic links"),
        (("train", "--recipe", "toy.toml", "--run", "toy.toml/run"), "Not a directory"),
    ],
)
def test_what_the_system_says_of_a_path_is_a_line(cli, toy_recipe, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    result = cli(*arguments)
    assert result.code in (2, 4)
    assert said in result.err
    assert result.err.startswith("maskrl: ")
    assert len(result.err.splitlines()) == 1


def test_an_error_of_the_system_that_is_of_no_path_stays_a_bug(monkeypatch):
    import maskrl.cli as command_line

    def broken(arguments):
        raise OSError("of nothing")

    monkeypatch.setattr(command_line, "app", broken)
    with pytest.raises(OSError, match="of nothing"):
        command_line.main([])


def test_a_component_that_changes_the_folder_ends_the_run_which_is_saved_where_it_began(
    cli, world, monkeypatch
):
    monkeypatch.chdir(world.parent)
    settings = ["--set=reward.at=2", "--set=reward.how='os.chdir(\"/\")'"]
    result = cli("train", "--recipe", world, "--run", "here", *settings)
    assert result.code == 3
    assert "the reward 'Fails' breaks its contract: it changed the working directory" in result.err
    assert Path.cwd() == world.parent
    assert len(listed(world.parent / "here/checkpoints")) == 1
