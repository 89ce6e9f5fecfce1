"""Before the first update: processes that have read other things are refused, by the name of what differs."""

import signal

import pytest
from chaos import Start, go

from maskrl.errors import RecipeError
from maskrl.evals.ranks import check_same
from maskrl.grpo.processes import SingleProcess

READ = {
    "grpo.eps_low": 0.1,
    "reward": {"class": "x:Y", "model": {"sha256": "ab" * 32}},
    "prompts": {"number": 2},
}


class Two(SingleProcess):
    """The main one of two processes, the other of which has read ``other``."""

    def __init__(self, other):
        object.__setattr__(self, "other", other)

    def gather_objects(self, values):
        return [*values, self.other] if isinstance(values[0], dict) else values


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({**READ, "grpo.eps_low": 0.2}, "grpo.eps_low is 0.2 there and 0.1 here"),
        (
            {**READ, "reward": {"class": "x:Y", "model": {"sha256": "cd" * 32}}},
            "reward.model.sha256 is 'cdcdcdcdcdcd... there and 'abababababab... here",
        ),
        ({**READ, "prompts": {"number": 3}}, "prompts.number is 3 there and 2 here"),
        ({key: READ[key] for key in READ if key != "prompts"}, "prompts is None there and"),
    ],
)
def test_processes_that_read_other_things_are_refused(other, said):
    check_same(SingleProcess(), READ)
    check_same(Two(dict(READ)), READ)
    with pytest.raises(RecipeError) as refused:
        check_same(Two(other), READ)
    assert "process 1 has read other inputs than process 0" in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


RANKED = """
import os

from maskrl.interfaces import PromptSet
from maskrl.types import Prompt


class Ranked(PromptSet):
    def prompts(self):
        return [Prompt(f"a cat of process {os.environ.get('RANK')}")] * 3
"""


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--run", "run", "--set", "prompts.train=ranked.py:Ranked"),
        pytest.param(
            ("eval", "reward", "--reward", "clip", "--prompts", "ranked.py:Ranked", "--out", "run"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_prompts_on_another_process_end_both_in_one_line(toy_recipe, tmp_path, command):
    (tmp_path / "ranked.py").write_text(RANKED)
    toy = toy_recipe.read_text().partition('name = "')[2].partition(":")[0]
    arguments = [f"{toy}:Red" if part == "clip" else part for part in command]
    end = go(Start((*arguments, "--recipe", str(toy_recipe)), tmp_path, processes=2))
    assert set(end.codes) in ({2}, {2, -signal.SIGTERM}), (
        end.said
    )  # the slower is told to end, as by torchrun
    assert end.said.count("maskrl: ") == 1
    assert "process 1 has read other inputs than process 0: prompts" in end.said
