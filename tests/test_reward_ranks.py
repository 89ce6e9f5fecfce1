"""Rewards on chosen processes: the metrics are those of a reward on each."""

import json
from pathlib import Path

import pytest
from test_processes import CHANGES, assert_same_rows, folder, launch, settings  # noqa: F401
from test_training import comparable

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.runtime.placed_reward import check_ranks
from maskrl.training.loop import train

JUDGES = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import toy_run

class Terms(toy_run.Red):
    '''Two terms, of which a prompt's text is one; notes where it was built.'''

    def __init__(self, config):
        super().__init__(config)
        Path(f"built_{{os.environ.get('RANK', 'alone')}}").touch()

    def score_terms(self, images, prompts):
        red = self.score(images, prompts)
        text = red * 0 + red.new_tensor([len(prompt.text) + int(prompt.text[-1]) for prompt in prompts]) * red
        return red + text, {{"red": red, "text": text}}

    def term_weights(self):
        return {{"red": 2.0, "text": 0.5}}
"""
FEW = ("training.updates=3", "eval=", "tracking.sample_prompts=[]", "training.reward_batch=5")
PLACED = (*CHANGES, *FEW, "reward.name=judges.py:Terms", "grpo.advantage_of=terms", "watch.every=2")


@pytest.mark.parametrize(
    ("rank", "more"),
    [
        (0, ("training.overlap_reward=true", "training.rollout_batch=5")),
        (1, ("training.max_staleness=1", "training.lr_schedule=constant")),
        (1, ("parallel.strategy=shard",)),
    ],
)
@pytest.mark.slow
def test_one_process_judges_for_both(folder, monkeypatch, rank, more):  # noqa: F811
    (folder / "judges.py").write_text(JUDGES.format(tests=str(Path(__file__).parent)))
    monkeypatch.chdir(folder)
    changes = (*PLACED, "watch.rewards.held.name=judges.py:Terms", *more)
    alone = train(read_recipe(folder / "recipe.toml", changes), folder / "alone", resume=False, display=False)
    placed = settings(*changes, f"parallel.reward_ranks=[{rank}]")
    two = launch(folder, "train", "--recipe", "recipe.toml", "--run", "two", *placed)
    assert two.returncode == 0, two.stderr
    assert_same_rows(comparable(alone.run), comparable(folder / "two"))
    assert any("held_out_held" in row for row in comparable(folder / "two"))
    assert {path.name for path in folder.glob("built_*")} == {"built_alone", f"built_{rank}"}
    assert json.loads((folder / "two/metrics.jsonl").read_text().splitlines()[0])["reward_text_mean"] > 0


@pytest.mark.parametrize(
    ("ranks", "message"),
    [("[]", "name at least one process"), ("[0, 0]", "each once"), ("[-1]", "reward_ranks")],
)
def test_ranks_that_cannot_be_are_refused_in_a_line(folder, ranks, message):  # noqa: F811
    with pytest.raises(RecipeError) as caught:
        read_recipe(folder / "recipe.toml", [f"parallel.reward_ranks={ranks}"])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rank_that_does_not_exist_is_refused_before_anything_is_built(folder):  # noqa: F811
    with pytest.raises(RecipeError, match="no process of rank 1; there is one process, of rank 0"):
        train(
            read_recipe(folder / "recipe.toml", ["parallel.reward_ranks=[0, 1]"]),
            folder / "run",
            False,
            False,
        )
    assert not (folder / "run").exists()
    with pytest.raises(RecipeError, match="no process of rank 2; ranks are 0 to 1 here"):
        check_ranks([0, 2], 2)
    check_ranks([1], 2)
