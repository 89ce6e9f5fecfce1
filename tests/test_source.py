"""What --run and --checkpoint mean is what the generator says of its own settings."""

import pytest

from maskrl.cli.source import open_source
from maskrl.errors import PluginError

OTHER_NAMES = """
from toy_run import ToyGenerator

from maskrl.component import ComponentConfig


class Other(ToyGenerator):
    class Config(ComponentConfig):
        folder: str | None = None
        first: str | None = None

    paths = ("folder", "first")

    @classmethod
    def saved_settings(cls, folder):
        return {"folder": folder, "first": None}


class Silent(ToyGenerator):
    class Config(ComponentConfig):
        folder: str | None = None
"""


@pytest.fixture
def other(toy_recipe):
    toy_recipe.with_name("other.py").write_text(OTHER_NAMES)
    toy_recipe.with_name("weights").mkdir()
    generator = f'"{toy_recipe.with_name("other.py")}:Other"\nfirst = "first.pth"'
    written = toy_recipe.read_text().split("[transition]")[1]
    toy_recipe.write_text(f"[generator]\nname = {generator}\n[transition]{written}")
    return toy_recipe


def test_saved_weights_go_into_the_setting_that_the_generator_names(other, tmp_path):
    plain = open_source(str(other), None, None, []).generator.config
    assert (plain.folder, plain.first) == (None, "first.pth")
    saved = open_source(str(other), None, tmp_path / "weights", []).generator.config
    assert (saved.folder, saved.first) == (str(tmp_path / "weights"), None)


def test_a_generator_that_names_no_setting_of_its_own_is_told_what_to_say(other, tmp_path):
    name = f"generator.name={tmp_path / 'other.py'}:Silent"
    with pytest.raises(PluginError, match=r"has no setting 'checkpoint'.* its saved_settings\(\) names"):
        open_source(str(other), None, tmp_path / "weights", [name, "generator.first="])


def test_a_weights_file_does_not_hide_what_was_trained(tmp_path):
    changes = ["generator.weights=/before/training.pth"]
    assert open_source(None, None, None, changes).generator.config.weights == "/before/training.pth"
    recipe = tmp_path / "mine.toml"
    recipe.write_text(open_source(None, None, None, changes).to_toml())
    trained = open_source(str(recipe), None, tmp_path, []).generator.config
    assert (trained.checkpoint, trained.weights) == (str(tmp_path), None)
