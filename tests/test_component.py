"""Paths in recipes work from anywhere; settings are closed and frozen."""

from pathlib import Path

import pytest
from pydantic import ValidationError

import maskrl
from maskrl.component import ComponentConfig, open_path, resolve_path
from maskrl.errors import RecipeError


@pytest.mark.parametrize("value", ["showlab/show-o-512x512", "openai", "package:maskrl/shapes"])
def test_what_is_no_path_stays_as_it_is(tmp_path, value):
    assert resolve_path(value, tmp_path) == value


def test_a_path_is_relative_to_the_recipe(tmp_path):
    (tmp_path / "weights").mkdir()
    assert resolve_path("weights", tmp_path) == str(tmp_path / "weights")
    assert resolve_path("./absent", tmp_path) == str(tmp_path / "absent")
    assert resolve_path("/absent", tmp_path) == "/absent"


def test_a_package_path_opens_inside_the_package():
    assert open_path("package:maskrl/grpo") == str(Path(maskrl.__file__).parent / "grpo")
    assert open_path("somewhere/else") == "somewhere/else"
    with pytest.raises(RecipeError, match="'maskrl' holds no 'nowhere'"):
        open_path("package:maskrl/nowhere")
    with pytest.raises(RecipeError, match="'not_installed', which is not installed"):
        open_path("package:not_installed/x")


def test_settings_refuse_unknown_keys_and_changes():
    class Config(ComponentConfig):
        size: int = 3

    with pytest.raises(ValidationError, match="Extra inputs"):
        Config.model_validate({"sizes": 4})
    with pytest.raises(ValidationError, match="frozen"):
        Config().size = 4
