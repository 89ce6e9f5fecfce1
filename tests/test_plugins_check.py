"""How far `maskrl plugins check` goes with components that may need weights."""

import re

import pytest

HEAD = """
import torch
from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel
class Mine(RewardModel):
    class Config(ComponentConfig):
        weights: {kind} = {default}
    paths = ("weights",)
    def __init__(self, config):
        super().__init__(config)
        {built}
    def score(self, images, prompts):
        return images.mean(dim=(1, 2, 3)){more}
"""


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "keeps its contract"),
        ({"more": " + torch.arange(len(images))"}, 3, "depends on the rest of its batch"),
        ({"default": "'some/where'"}, 0, "imports; it may need weights"),
        (
            {"built": "raise RecipeError('which weights?')"},
            0,
            "it is not built without weights or settings (which weights?)",
        ),
        (
            {"built": "raise OSError('no file')"},
            0,
            "it is not built without weights or settings (the reward 'Mine' raised OSError",
        ),
        ({"default": "3"}, 3, "the default of 'weights' is none that its Config reads"),
        ({"kind": "str", "default": "None"}, 3, "the default of 'weights' is none that its Config reads"),
    ],
)
def test_a_component_is_checked_where_it_needs_no_weights(cli, tmp_path, changes, code, said):
    text = HEAD.format(**{"kind": "str | None", "default": "None", "built": "pass", "more": "", **changes})
    (tmp_path / "mine.py").write_text(text)
    result = cli("plugins", "check", f"{tmp_path}/mine.py:Mine")
    assert result.code == code
    assert said in result.out
    assert len(result.out.splitlines()) == 1


GOOD = HEAD.format(kind="str | None", default="None", built="pass", more="").replace("Mine", "Good")


@pytest.fixture
def crowd(install, tmp_path):
    """A sound package beside one that does not import, two of one name, one outdated, and one that is damaged."""
    group = "maskrl.rewards.v1"
    install("maskrl-sound", GOOD, {group: {"sound": "maskrl_sound:Good"}})
    install("maskrl-bomb", "import nothing_like_this", {group: {"bomb": "maskrl_bomb:Good"}})
    install("maskrl-one", GOOD, {group: {"twice": "maskrl_one:Good"}})
    install("maskrl-two", GOOD, {group: {"twice": "maskrl_two:Good"}})
    install("maskrl-old", GOOD, {"maskrl.rewards.v0": {"old": "maskrl_old:Good"}})
    install("maskrl-hurt", GOOD, {group: {"hurt": "maskrl_hurt:Good"}})
    (tmp_path / "site/maskrl_hurt-0.1.dist-info/entry_points.txt").write_text(f"[{group}]\nno pair\n")


CLASH = (
    "the reward 'twice' is offered by 2 packages: a recipe writes 'maskrl-one/twice' or 'maskrl-two/twice'"
)
HURT = "maskrl-hurt: its entry points cannot be read (TypeError"


@pytest.mark.usefixtures("crowd")
def test_each_bad_package_has_its_line_in_the_list_and_the_others_are_there(cli):
    listed = cli("plugins", "list")
    assert listed.code == 0
    assert all(name in listed.out for name in ("sound", "bomb", "maskrl-one", "maskrl-two"))
    assert "maskrl-old 0.1 (for version 0 of the interface)" in listed.out
    damaged, clash = listed.err.splitlines()
    assert damaged.startswith(f"warning: {HURT}")
    assert clash == f"warning: {CLASH}"


@pytest.mark.usefixtures("crowd")
def test_each_bad_package_is_named_by_the_check(cli):
    checked = cli("plugins", "check", "sound", "bomb", "old", "twice")
    assert checked.code == 3
    lines = checked.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "broken", "broken", "ok", "ok"]
    assert "No module named 'nothing_like_this'" in lines[1]
    assert "is for version 0 of the interface, not 1" in lines[2]


@pytest.mark.usefixtures("crowd")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bomb", "maskrl-bomb 0.1: reward 'bomb' (maskrl_bomb:Good) does not load: ModuleNotFoundError"),
        ("twice", "2 packages offer the reward 'twice'; write 'maskrl-one/twice' or 'maskrl-two/twice'"),
        (
            "old",
            "reward 'old' of maskrl-old 0.1 is written for version 0 of the interface, this maskrl has 1",
        ),
        ("hurt", "no reward is called 'hurt'"),
    ],
)
def test_a_recipe_that_names_a_bad_one_says_so_and_the_others_train(cli, toy_recipe, tmp_path, name, said):
    text = re.sub(r'name = "[^"]*:Red"', 'name = "{}"', toy_recipe.read_text())
    toy_recipe.write_text(text.replace("{}", name))
    refused = cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run")
    assert refused.code in (2, 3)
    assert said in refused.err
    assert len(refused.err.splitlines()) == 1
    toy_recipe.write_text(text.replace("{}", "sound"))
    assert cli("recipe", "check", toy_recipe).code == 0
    if name == "bomb":
        assert cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run").code == 0
