"""What all code of a process shares stays as it is, whatever a component does; who changed it is named."""

import asyncio
import os

import pytest
import torch
from toy import ToyReward

from maskrl import registry
from maskrl.asking import asking, asking_all
from maskrl.errors import PluginError, Terminated
from maskrl.filters.keep_all import KeepAll
from maskrl.grpo import answers
from maskrl.interfaces import RewardModel
from maskrl.reducers.none import NoReduction
from maskrl.shared import put_back, shared
from maskrl.types import Prompt, Stream


def make(interface, **methods):
    component = type("Mine", (interface,), {"__module__": __name__, **methods})
    return component(interface.Config())


CHANGES = {
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's default device": "torch.set_default_device('meta')",
    "torch's grad mode": "torch.set_grad_enabled(False)",
    "torch's number of threads": "torch.set_num_threads(torch.get_num_threads() + 1)",
    "the working directory": "os.chdir('/')",
}


@pytest.mark.parametrize(("name", "code"), CHANGES.items(), ids=CHANGES)
def test_who_changes_what_is_shared_is_named_and_it_is_put_back(name, code):
    def score(self, images, prompts):
        found = ToyReward.score(self, images, prompts)
        exec(code)
        return found

    before = shared()
    assert name in before
    with pytest.raises(
        PluginError, match=rf"^the reward 'Mine' breaks its contract: it changed {name} from "
    ):
        answers.score(make(RewardModel, score=score), torch.rand(2, 3, 2, 2), [Prompt("a")] * 2)
    assert shared() == before


@pytest.mark.parametrize(("name", "code"), CHANGES.items(), ids=CHANGES)
def test_it_is_put_back_where_something_is_raised_too(name, code):
    def score(self, images, prompts):
        exec(code)
        raise ValueError("no")

    before = shared()
    with pytest.raises(PluginError, match="raised ValueError: no"):
        answers.score(make(RewardModel, score=score), torch.rand(2, 3, 2, 2), [Prompt("a")] * 2)
    assert shared() == before


def test_what_is_changed_for_a_while_is_nobodys_business():
    with asking(make(ToyReward)), torch.no_grad(), torch.inference_mode():
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)


def test_a_folder_that_is_gone_is_no_fault(tmp_path, monkeypatch):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with asking(make(ToyReward)):
        pass
    before = shared()
    os.chdir(tmp_path)
    assert put_back(before).startswith("it changed the working directory")


@pytest.mark.parametrize("code", [CHANGES["torch's grad mode"], CHANGES["the working directory"]])
def test_a_constructor_changes_nothing_either(cli, toy_recipe, tmp_path, code):
    (tmp_path / "bad.py").write_text(
        "import os, torch\nfrom maskrl.interfaces import RewardModel\nclass Bad(RewardModel):\n"
        f"    def __init__(self, config):\n        super().__init__(config)\n        {code}\n"
        "    def score(self, images, prompts):\n        return images.mean(dim=(1, 2, 3))\n"
    )
    name = f"{tmp_path}/bad.py:Bad"
    for command in (
        ("plugins", "check", name),
        ("train", "--recipe", toy_recipe, "--run", tmp_path / "run", "--set", f"reward.name={name}"),
    ):
        result = cli(*command)
        assert result.code == 3
        assert "it changed" in result.err + result.out
        assert "Traceback" not in result.err


def test_an_import_changes_nothing_either(tmp_path):
    (tmp_path / "bad.py").write_text(
        "import torch\nfrom maskrl.interfaces import RewardModel\ntorch.set_default_dtype(torch.bfloat16)\n"
        "class Bad(RewardModel):\n    def score(self, images, prompts): ...\n"
    )
    with pytest.raises(PluginError, match=r"does not load: it changed torch's default dtype from"):
        registry.load("rewards", "bad.py:Bad", tmp_path)
    assert torch.get_default_dtype() == torch.float32


def test_a_check_cannot_sort_the_prompts_of_a_run(cli, toy_recipe, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from maskrl.interfaces import RewardModel\nclass Bad(RewardModel):\n"
        "    def check(self, prompts):\n        prompts.sort(key=str)\n"
        "    def score(self, images, prompts):\n        return images.mean(dim=(1, 2, 3))\n"
    )
    result = cli(
        "train",
        "--recipe",
        toy_recipe,
        "--run",
        tmp_path / "run",
        "--set",
        f"reward.name={tmp_path}/bad.py:Bad",
    )
    assert result.code == 3
    assert "'Bad' raised AttributeError: 'tuple' object has no attribute 'sort'" in result.err.replace(
        "\n", " "
    )


def test_the_core_names_its_dtypes():
    torch.set_default_dtype(torch.float64)
    try:
        _, weights = NoReduction(NoReduction.Config()).train_steps(3, Stream(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert weights.dtype == torch.float32


class Unspeakable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class OutOfMemoryError(Exception):
    """Somebody's own, of a name that PyTorch has too."""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (asyncio.CancelledError("request"), "CancelledError: request"),
        (GeneratorExit(), "GeneratorExit:"),
        (Unspeakable(), r"Unspeakable: \(no message\)"),
        (OutOfMemoryError("mine"), "OutOfMemoryError: mine"),
        (ValueError("x" * 10**6), "ValueError: x{900,1000}…"),
    ],
)
def test_whatever_a_component_raises_is_a_line_with_its_name(raised, said):
    with (
        pytest.raises(PluginError, match=f"^the reward 'Mine' raised {said}") as error,
        asking(make(ToyReward)),
    ):
        raise raised
    assert len(str(error.value)) < 1200


def test_a_signal_is_no_components_doing():
    with pytest.raises(Terminated), asking(make(ToyReward)):
        raise Terminated(143)


@pytest.mark.parametrize("unwrapped", [lambda self: 1 / 0, lambda self: None])
def test_a_component_that_cannot_be_unwrapped_is_named(unwrapped):
    mine = make(ToyReward, unwrapped=unwrapped)
    with pytest.raises(PluginError, match="the reward 'Mine' raised ValueError"), asking(mine):
        raise ValueError


def test_of_several_components_the_one_whose_file_it_was_is_named():
    def score(self, images, prompts):
        raise ValueError("no")

    mine = make(ToyReward, score=score)
    other = type("Other", (ToyReward,), {"__module__": "elsewhere"})(ToyReward.Config())
    with pytest.raises(PluginError, match="the reward 'Mine' raised ValueError: no"), asking_all(other, mine):
        mine.score(None, None)
    with pytest.raises(ZeroDivisionError), asking_all(KeepAll(KeepAll.Config())):
        _ = 1 / 0
