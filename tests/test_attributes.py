"""What a constructor leaves and what a Config is are looked at where a component is built; defaults outlive a run."""

import pytest
from conftest import TOY

from maskrl import testing
from maskrl.component import ComponentConfig, build
from maskrl.errors import PluginError
from maskrl.filters.keep_all import KeepAll

HEAD = """
import torch
from dataclasses import dataclass, replace
from pydantic import BaseModel
from torch import nn
from maskrl.component import ComponentConfig
from maskrl.interfaces import MaskedGenerator, RewardModel
from maskrl.types import GeneratorSpec, SamplerDefaults
class Reward(RewardModel):
    def score(self, images, prompts):
        return images.mean(dim=(1, 2, 3))
"""
REWARDS = {
    "modules = None": "its 'modules' is of type NoneType; wanted is a sequence of Module",
    "modules = {'clip': nn.Linear(1, 1)}": "its 'modules' is of type dict; wanted is a sequence of Module",
    "modules = ('clip',)": "its 'modules' is of type tuple; wanted is a sequence of Module",
    "modules = property(lambda self: 1 / 0)": "raised ZeroDivisionError",
    "unwrapped = lambda self: None": "unwrapped returned NoneType, which is no component",
    "unwrapped = lambda self: 1 / 0": "raised ZeroDivisionError",
    "Config = None": "its Config is no ComponentConfig",
    "Config = dict": "its Config is no ComponentConfig",
    "Config = type('Config', (BaseModel,), {})": "its Config is no ComponentConfig",
}


@pytest.mark.parametrize(("body", "complaint"), REWARDS.items())
def test_a_reward_is_looked_at_when_it_is_built(tmp_path, body, complaint):
    (tmp_path / "bad.py").write_text(f"{HEAD}\nclass Bad(Reward):\n    {body}\n")
    with pytest.raises(PluginError, match=f"the reward 'Bad' .*{complaint}") as error:
        build("rewards", {"name": "bad.py:Bad"}, tmp_path)
    assert "\n" not in str(error.value)


SPEC = "GeneratorSpec({}, 4, 4, (2, 3), (8, 12), SamplerDefaults({}))"
GENERATORS = {
    "spec = None": "its 'spec' is of type NoneType; wanted is GeneratorSpec",
    "frozen = None": "its 'frozen' is of type NoneType; wanted is a sequence of Module",
    "module = property(lambda self: None, lambda self, value: None)": "'NoneType' object has no|wanted is Module",
    f"spec = {SPEC.format(6.0, 3)}": "its 'spec.num_tokens' is of type float; wanted is Integral",
    f"spec = {SPEC.format(6, 3.0)}": "its 'spec.sampler.num_steps' is of type float; wanted is Integral",
}


@pytest.mark.parametrize(("body", "complaint"), GENERATORS.items())
def test_a_generator_is_looked_at_when_it_is_built(tmp_path, body, complaint):
    toy = TOY.read_text()
    (tmp_path / "bad.py").write_text(f"{toy}\nclass Bad(ToyGenerator):\n    {body}\n")
    with pytest.raises(PluginError, match=f"the generator 'Bad' .*({complaint})") as error:
        build("generators", {"name": "bad.py:Bad"}, tmp_path)
    assert "\n" not in str(error.value)


def test_a_mask_that_is_a_code_ends_a_run_with_a_line(cli, toy_recipe, tmp_path):
    code = TOY.read_text().replace("TOKENS, CODES, CODES, (2, 3)", "TOKENS, CODES, CODES - 1, (2, 3)")
    assert code != TOY.read_text()
    (tmp_path / "bad.py").write_text(code)
    settings = ["--set", f"generator.name={tmp_path}/bad.py:ToyGenerator", "--run", tmp_path / "run"]
    result = cli("train", "--recipe", toy_recipe, *settings)
    assert result.code == 3
    assert "'ToyGenerator' breaks its contract: spec.mask_id = 3 is a code" in result.err.replace("\n", " ")


def test_a_run_without_anything_to_train_ends_with_a_line(cli, toy_recipe, tmp_path):
    code = TOY.read_text().replace(
        "if config.double:", "self.module.requires_grad_(False)\n        if config.double:"
    )
    (tmp_path / "bad.py").write_text(code)
    settings = ["--set", f"generator.name={tmp_path}/bad.py:ToyGenerator", "--run", tmp_path / "run"]
    result = cli("train", "--recipe", toy_recipe, *settings)
    assert result.code == 3
    assert "no parameter of module asks for a gradient: nothing can be trained" in result.err.replace(
        "\n", " "
    )


def test_settings_that_are_no_json_end_a_run_with_a_line(cli, toy_recipe, tmp_path):
    (tmp_path / "bad.py").write_text(
        f"{HEAD}\nclass Bad(Reward):\n"
        "    class Config(ComponentConfig, arbitrary_types_allowed=True):\n        k: nn.Module = nn.Linear(1, 1)\n"
    )
    settings = ["--set", f"reward.name={tmp_path}/bad.py:Bad", "--run", tmp_path / "run"]
    result = cli("train", "--recipe", toy_recipe, *settings)
    assert result.code == 3
    assert "the reward 'Bad' breaks its contract: its settings cannot be saved as JSON" in result.err.replace(
        "\n", " "
    )


def test_a_filters_state_that_is_no_json_ends_a_run_with_a_line(cli, toy_recipe, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from maskrl.filters.keep_all import KeepAll\nclass Bad(KeepAll):\n"
        "    def state_dict(self):\n        state = {}\n"
        "        for _ in range(10**5):\n            state = {'a': state}\n        return state\n"
    )
    settings = ["--set", f"filter.name={tmp_path}/bad.py:Bad", "--run", tmp_path / "run"]
    result = cli("train", "--recipe", toy_recipe, *settings)
    assert result.code == 3
    assert "the filter 'Bad' breaks its contract: state_dict cannot be saved as JSON" in result.err.replace(
        "\n", " "
    )


class Anything:
    """No JSON."""


DEFAULTS = {
    "three": (int, "three", "the default of 'k' is none that its Config reads"),
    "nan": (float, float("nan"), "the default of 'k' is none that its Config reads"),
    "a set": (set[str], {"a", "b"}, "the default of 'k' is a set, of another order in every process"),
    "an object": (Anything, Anything(), "the default of 'k' cannot be saved as JSON"),
    "bytes": (bytes, b"\xff", "the default of 'k' cannot be saved as JSON|is another once it was saved"),
}


@pytest.mark.parametrize(("kind", "value", "complaint"), DEFAULTS.values(), ids=DEFAULTS)
def test_a_default_that_a_resumed_run_would_not_read_is_named(kind, value, complaint):
    body = {"__annotations__": {"k": kind}, "k": value, "__module__": __name__}
    config = type("Config", (ComponentConfig,), body, arbitrary_types_allowed=True)
    with pytest.raises(PluginError, match=f"'Mine' breaks its contract: .*({complaint})"):
        testing.check_class(type("Mine", (KeepAll,), {"Config": config}))


def test_sound_defaults_pass():
    kinds = {"k": tuple[int, ...], "l": dict[str, float], "m": str | None, "n": list[str]}
    values = {"k": (1, 2), "l": {"a": 0.1}, "m": None, "n": []}
    config = type("Config", (ComponentConfig,), {"__annotations__": kinds, **values, "__module__": __name__})
    testing.check_class(type("Mine", (KeepAll,), {"Config": config}))
