"""Paths in recipes work from anywhere; settings are closed and frozen, and may name other components."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import ValidationError

import maskrl
from maskrl.component import Chosen, ComponentConfig, named, open_path, resolve_path
from maskrl.errors import RecipeError
from maskrl.interfaces import GroupFilter


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


class Naming(ComponentConfig):
    filter: Annotated[Chosen[GroupFilter], *named("filters")]


def test_a_setting_names_a_component_by_a_string_or_a_section():
    assert Naming(filter="std_percentile").filter.config.percentile == 10
    named_with_settings = Naming(filter={"name": "std_percentile", "percentile": 30})
    assert named_with_settings.filter.build().config.percentile == 30
    written = named_with_settings.model_dump(mode="json")
    assert written["filter"]["percentile"] == 30
    assert Naming.model_validate(written) == named_with_settings


def test_a_named_file_is_relative_to_the_recipe(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from maskrl.filters.keep_all import KeepAll\nclass Mine(KeepAll):\n    pass\n"
    )
    config = Naming.model_validate({"filter": "mine.py:Mine"}, context={"base": tmp_path})
    assert config.filter.name == f"{tmp_path / 'mine.py'}:Mine"
    assert type(config.filter.build()).__name__ == "Mine"


@pytest.mark.parametrize(
    ("value", "where", "complaint"),
    [
        ("keep_al", ("filter",), "did you mean 'keep_all'"),
        ({"name": "keep_al"}, ("filter", "name"), "did you mean 'keep_all'"),
        ({"percentile": 30}, ("filter", "name"), "say which filter"),
        ({"name": "std_percentile", "percentle": 3}, ("filter", "percentle"), "Extra inputs"),
        (3, ("filter",), "names a filter, or is a section"),
    ],
)
def test_a_component_that_cannot_be_had_is_a_mistake_at_its_key(value, where, complaint):
    with pytest.raises(ValidationError, match=complaint) as error:
        Naming(filter=value)
    assert error.value.errors()[0]["loc"] == where
