"""Paths in recipes work from anywhere; settings are closed and frozen, and may name other components."""

import subprocess
import sys
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


@pytest.mark.parametrize("name", ["os", "", "/x", "json.decoder/x", "not_there.inside/x", "x" * 300 + "/y"])
def test_what_is_no_installed_package_is_one_line(name):
    with pytest.raises(RecipeError, match=r"is not installed|holds no"):
        open_path(f"package:{name}")


def test_a_package_is_found_without_being_run(tmp_path, monkeypatch):
    (tmp_path / "site" / "trap" / "inner").mkdir(parents=True)
    (tmp_path / "site" / "trap" / "__init__.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert (
        open_path("package:trap/inner")
        == open_path("package:trap.inner")
        == str(tmp_path / "site/trap/inner")
    )
    with pytest.raises(RecipeError, match="holds no 'outer'"):
        open_path("package:trap/outer")


def test_the_working_directory_holds_no_packages(tmp_path):
    (tmp_path / "evil" / "x").mkdir(parents=True)
    for file in ("evil/__init__.py", "yaml.py", "tomllib.py", "pydantic.py"):
        (tmp_path / file).write_text("open('sprung', 'w')")
    command = [sys.executable, "-m", "maskrl", "plan", "--set", "generator.checkpoint=package:evil/x"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "'evil', which is not installed" in done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "sprung").exists()


def test_nothing_stays_nothing_and_is_no_folder(tmp_path):
    assert resolve_path("", tmp_path) == ""


@pytest.mark.parametrize("value", ["~nouser/x", "x" * 300, "./" + "x" * 300])
def test_what_cannot_be_a_path_is_one_line(tmp_path, value):
    with pytest.raises(RecipeError, match=f"^'{value[:5]}.* is no path: "):
        resolve_path(value, tmp_path)
