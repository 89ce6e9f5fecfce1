"""A network that lies divided among two processes learns what a whole one does."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from processes import run
from sharded_updates import CASES
from test_processes import CHANGES, LAUNCH, folder, launch, settings  # noqa: F401
from test_training import weights

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.runtime.checkpoint import listed
from maskrl.training.loop import train

SCRIPT = Path(__file__).with_name("sharded_updates.py")


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(folder):  # noqa: F811
    with pytest.raises(RecipeError, match="bitsandbytes does not know divided weights; choose 'adamw'"):
        read_recipe(folder / "recipe.toml", ("parallel.strategy=shard", "training.optimizer=adamw_8bit"))
    (folder / "odd.py").write_text(
        f"import sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\nimport toy_run, torch\n"
        "class Odd(toy_run.ToyGenerator):\n    def __init__(self, config):\n        super().__init__(config)\n"
        "        self.module.alone = torch.nn.Parameter(torch.tensor(1.0))\n"
    )
    changes = (*CHANGES, "parallel.strategy=shard", "generator.name=odd.py:Odd")
    done = launch(folder, "train", "--recipe", "recipe.toml", "--run", "odd", *settings(*changes))
    assert done.returncode != 0
    assert "maskrl: parallel.strategy = 'shard': the network of Odd cannot be divided" in done.stderr
    assert "maskrl/cli/__init__.py" not in done.stderr, done.stderr  # no traceback of ours


@pytest.mark.slow
def test_where_one_process_fails_the_other_says_so_and_the_newest_checkpoint_stands(folder):  # noqa: F811
    (folder / "fails.py").write_text(
        f"import os, sys\nsys.path.insert(0, {str(SCRIPT.parent)!r})\nimport toy_run\n"
        "class Fails(toy_run.Red):\n    def score(self, images, prompts):\n"
        "        scores = super().score(images, prompts)\n"
        "        if self.calls == 4 and os.environ['RANK'] == '1':\n"
        "            raise ConnectionError('the judge is away')\n        return scores\n"
    )
    changes = (
        *CHANGES,
        "parallel.strategy=shard",
        "reward.name=fails.py:Fails",
        "checkpoint.every=1",
        "eval=",
    )
    calm = ("filter={ name = 'keep_all' }", "tracking.sample_prompts=[]")
    done = launch(folder, "train", "--recipe", "recipe.toml", "--run", "run", *settings(*changes, *calm))
    assert done.returncode != 0
    assert listed(folder / "run/checkpoints")[-1].name == "update_00003"
    ours = [row for row in done.stderr.splitlines() if row.startswith("maskrl: ")]
    assert any("the reward 'Fails' raised ConnectionError: the judge is away" in row for row in ours)
    assert "maskrl/cli/__init__.py" not in done.stderr, done.stderr


def assert_same_weights(run, other):
    for name, tensor in weights(run).items():
        torch.testing.assert_close(weights(other)[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.long
def test_two_processes_replicate_and_shard_make_the_updates_of_one(tmp_path):
    alone = run([sys.executable, SCRIPT, tmp_path, "alone"], timeout=900)
    assert alone.returncode == 0, alone.stderr
    two = run([*LAUNCH[:-3], SCRIPT, tmp_path, "replicate", "shard"], timeout=900)
    assert two.returncode == 0, two.stderr
    assert "Warning" not in two.stderr
    for case in CASES:
        # what depends on the process is the same on as many alone
        ways = ("replicate", "shard") if case == "unblocked" else ("alone", "replicate", "shard")
        expected, *others = (torch.load(tmp_path / f"{case}_{how}.pt", weights_only=True) for how in ways)
        assert any(row["grad_norm"] > 0 for row in expected["metrics"])
        for found in others:
            assert torch.equal(found["tokens"], expected["tokens"]), case
            for row, wanted in zip(found["metrics"], expected["metrics"], strict=True):
                assert row == pytest.approx(wanted, abs=1e-5), case
            assert found["weights"].keys() == expected["weights"].keys()
            for name, tensor in expected["weights"].items():
                torch.testing.assert_close(
                    found["weights"][name], tensor, rtol=0, atol=2e-6
                )  # adapters: fp32


def test_a_sharded_run_is_the_run_of_one_process_and_either_resumes_the_other(folder):  # noqa: F811
    """With an average, evaluations, of which one process has fewer images, pictures, and checkpoints."""
    changes = (*CHANGES, "parallel.strategy=shard", "ema.decay=0.5", "training.lr_schedule=constant")
    whole = train(read_recipe(folder / "recipe.toml", changes), folder / "alone", resume=False, display=False)
    fewer = [*changes, "training.updates=2", "checkpoint.every=1", "training.warmup_updates=2"]
    two = launch(folder, "train", "--recipe", "recipe.toml", "--run", "run", *settings(*fewer))
    assert two.returncode == 0, two.stderr
    assert "Warning" not in two.stderr
    assert (folder / "run/samples/before_after.png").exists()
    longer = read_recipe(folder / "run/recipe.toml", ["training.updates=5"])
    back = train(longer, folder / "run", resume=True, display=False)
    assert back.updates == 5
    assert_same_weights(whole.run, folder / "run")
    shutil.rmtree(folder / "run/checkpoints/update_00005")  # the one before was saved by one process
    again = launch(folder, "train", "--run", "run", "--resume")
    assert again.returncode == 0, again.stderr
    assert_same_weights(whole.run, folder / "run")
