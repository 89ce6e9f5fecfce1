"""What --run and --checkpoint mean is what the generator says of its own settings."""

from pathlib import Path

import pytest
from conftest import TOY
from toy_run import geneval_prompts

from maskrl.errors import PluginError, RecipeError
from maskrl.library.sources import resolve_recipe


def opened(recipe, run, checkpoint, overrides):
    return resolve_recipe(recipe, run, checkpoint, overrides, ("generators",))


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
    plain = opened(str(other), None, None, []).generator.config
    assert (plain.folder, plain.first) == (None, "first.pth")
    saved = opened(str(other), None, tmp_path / "weights", []).generator.config
    assert (saved.folder, saved.first) == (str(tmp_path / "weights"), None)


def test_a_generator_that_names_no_setting_of_its_own_is_told_what_to_say(other, tmp_path):
    name = f"generator.name={tmp_path / 'other.py'}:Silent"
    with pytest.raises(PluginError, match=r"has no setting 'checkpoint'.* its saved_settings\(\) names"):
        opened(str(other), None, tmp_path / "weights", [name, "generator.first="])


def test_a_weights_file_does_not_hide_what_was_trained(tmp_path):
    changes = ["generator.weights=/before/training.pth"]
    assert opened(None, None, None, changes).generator.config.weights == "/before/training.pth"
    recipe = tmp_path / "mine.toml"
    recipe.write_text(opened(None, None, None, changes).to_toml())
    trained = opened(str(recipe), None, tmp_path, []).generator.config
    assert (trained.checkpoint, trained.weights) == (str(tmp_path), None)


@pytest.fixture
def finished(cli, toy_recipe, tmp_path):
    """A run whose reward, prompts and evaluation are no longer there."""
    reward, prompts = tmp_path / "reward.py", tmp_path / "prompts.txt"
    reward.write_text("from toy_run import Red\n\n\nclass Mine(Red):\n    pass\n")
    run = tmp_path / "run"
    name = f"reward.name={reward}:Mine"
    assert cli("train", "--recipe", toy_recipe, "--run", run, "--set", name, "--quiet").code == 0
    reward.write_text(f"from pathlib import Path\nPath({str(tmp_path / 'sprung')!r}).touch()")
    prompts.unlink()
    written = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(written.replace('name = "keep_all"', 'name = "somebodys-plugin/filter"'))
    return run


@pytest.mark.parametrize("command", [("sample", "red tiles", "--num", 2), ("eval", "reward")])
def test_where_the_newest_checkpoint_is_damaged_the_advice_can_be_followed(
    cli, toy_recipe, tmp_path, command, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "1000")
    run, out = tmp_path / "run", tmp_path / "out.png"
    saved = ("--set", "checkpoint.every=1")
    assert cli("train", "--recipe", toy_recipe, "--run", run, *saved, "--quiet").code == 0
    (run / "checkpoints/update_00002/training.safetensors").write_bytes(b"cut")
    prompts = ("--prompts", toy_recipe.with_name("prompts.txt")) if command[0] == "eval" else ()
    asked = (*command, *prompts, "--run", run, "--out", out)
    refused = cli(*asked)
    assert refused.code == 4
    assert "update_00002' is damaged" in refused.err
    assert refused.err.rstrip().endswith("; --checkpoint update_00001 is intact")
    advised = cli(*asked, "--checkpoint", "update_00001")
    assert advised.code == 0, advised.err
    assert out.exists()


def test_a_run_with_a_checkpoint_has_the_runs_recipe_and_those_weights(finished, tmp_path):
    (name,) = [path.name for path in (finished / "checkpoints").iterdir()][-1:]
    folder = finished / "checkpoints" / name / "generator"
    (tmp_path / "elsewhere").mkdir()
    for given, meant in (
        (name, folder),
        (folder, folder),
        (folder.parent, folder),
        (tmp_path / "elsewhere", tmp_path / "elsewhere"),
    ):
        chosen = opened(None, finished, Path(given), [])
        assert chosen.generator.config.checkpoint == str(meant)
        assert chosen.generator.name.endswith("ToyGenerator")
    (tmp_path / "prompts.txt").write_text("red tiles\n")
    written = str(tmp_path / "toy.toml")
    assert opened(written, None, folder.parent, []).generator.config.checkpoint == str(folder)
    with pytest.raises(RecipeError, match=f"has no checkpoint 'update_00009'; it has .*{name}"):
        opened(None, finished, Path("update_00009"), [])


def test_a_run_is_sampled_and_evaluated_without_its_reward_and_its_prompts(cli, finished, tmp_path):
    grid = tmp_path / "grid.png"
    assert cli("sample", "red tiles", "--run", finished, "--num", 2, "--out", grid).code == 0
    assert grid.exists()
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    out = tmp_path / "out"
    judged = ("--prompts", tmp_path / "geneval.jsonl", "--detector", f"{TOY}:Tiles", "--images-per-prompt", 1)
    result = cli("eval", "geneval", "--run", finished, *judged, "--out", out)
    assert result.code == 0, result.err
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "command", [("sample", "x", "--num", "1", "--out", "grid.png"), ("plan",), ("check", "on-policy")]
)
def test_a_recipes_file_is_run_only_by_a_command_that_needs_it(
    cli, toy_recipe, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.py").write_text(
        "from pathlib import Path\nPath('sprung').touch()\nfrom maskrl.filters.keep_all import KeepAll\n"
    )
    changed = toy_recipe.read_text().replace('"keep_all"', f'"{tmp_path}/trap.py:KeepAll"')
    toy_recipe.write_text(changed)
    cli(*command, "--recipe", toy_recipe)
    assert not (tmp_path / "sprung").exists()
    cli("recipe", "check", toy_recipe)
    assert (tmp_path / "sprung").exists()
