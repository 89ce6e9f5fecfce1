"""How far `maskrl plugins check` goes with components that may need weights."""

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
