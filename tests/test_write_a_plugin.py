"""The plugin page, followed to the letter by somebody who has nothing else."""

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
CODE, CONTRACT, EVALUATION = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
NAMED, REWARD = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)).splitlines()
SHOWN = re.search(r"```py\n(class Brightness.*?)```", PAGE, flags=re.DOTALL)[1]


def exchange_reward(recipe):
    """Put the page's section in the place of a recipe's own."""
    return re.sub(r"\[reward\]\n(?:[^\[\n][^\n]*\n|\n)*", lambda _: REWARD + "\n", recipe)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "brightness.py").write_text(CODE, encoding="utf-8")
    return tmp_path


def test_a_shipped_recipe_takes_the_reward_of_the_page(cli, folder):
    recipe = folder / "my.toml"
    recipe.write_text(exchange_reward(cli("recipe", "show", "shapes_clip").out), encoding="utf-8")
    assert cli("recipe", "check", recipe).code == 0
    shown = cli("recipe", "show", recipe).out
    assert "target = 0.5" in shown
    assert "openai" not in shown
    for wrong, said in (("goal = 0.5", "reward.goal: unknown key"), ("target = 2", "reward.target: ")):
        recipe.write_text(recipe.read_text().replace("target = 0.5", wrong))
        refused = cli("recipe", "check", recipe)
        assert refused.code == 2
        assert said in refused.err
        recipe.write_text(recipe.read_text().replace(wrong, "target = 0.5"))


def test_it_teaches(cli, toy_recipe, folder):
    toy_recipe.write_text(exchange_reward(toy_recipe.read_text()))
    assert cli("train", "--recipe", toy_recipe, "--run", folder / "run").code == 0
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    updates = [row for row in rows if row["kind"] == "update"]
    assert len(updates) == 2
    assert all(-1 < row["reward_mean"] < 0 for row in updates)


def test_the_file_keeps_the_contract(cli, folder, monkeypatch):
    monkeypatch.chdir(folder)
    result = cli("plugins", "check", "brightness.py:Brightness")
    assert (result.code, result.out.count("keeps its contract")) == (0, 1)


def test_the_page_begins_with_a_package_and_every_command_of_it_works(cli, tmp_path, install, monkeypatch):
    """pip alone is left out: its work is done by the fixture, and by a wheel in tests/test_plugins_new.py."""
    monkeypatch.chdir(tmp_path)
    assert COMMANDS[:2] == ["maskrl plugins new reward brightness", "pip install -e maskrl-brightness"]
    small = ["--set=training.updates=2", "--set=training.prompts_per_update=1", "--set=grpo.num_steps=2"]
    for line in COMMANDS:
        if line.startswith("pip"):
            project = tomllib.loads(Path("maskrl-brightness/pyproject.toml").read_text())["project"]
            install(project["name"], "", project["entry-points"], project["version"])
            monkeypatch.syspath_prepend("maskrl-brightness/src")
            sys.modules.pop("maskrl_brightness", None)
            continue
        words = shlex.split(line)
        done = cli(*words[1:], *(small if words[1] == "train" else []))
        assert done.code == 0, (line, done.err)
    section = tomllib.loads(NAMED)["reward"]
    assert section == tomllib.loads(Path("maskrl-brightness/brightness.toml").read_text())["reward"]
    lines = Path("maskrl-brightness/src/maskrl_brightness/__init__.py").read_text().splitlines()
    assert [line for line in SHOWN.splitlines() if line not in lines] == []
    exec(CONTRACT + "\ntest_contract()\n", {})
    assert all(Path(f"runs/{name}/metrics.jsonl").is_file() for name in ("bright", "dark"))


def test_the_evaluation_of_the_page_is_a_command_and_a_section(cli, toy_recipe, folder, monkeypatch):
    (folder / "lightness.py").write_text(EVALUATION, encoding="utf-8")
    monkeypatch.chdir(folder)
    checked = cli("plugins", "check", "lightness.py:Lightness")
    assert (checked.code, checked.out.count("keeps its contract")) == (0, 1), checked.out
    section = '[eval.lightness]\nname = "lightness.py:Lightness"\nimages_per_prompt = 1\n'
    toy_recipe.write_text(toy_recipe.read_text() + section)
    assert cli("train", "--recipe", toy_recipe, "--run", folder / "run").code == 0
    evaluated = cli(
        "eval", "lightness.py:Lightness", "--run", folder / "run", "--out", folder / "out", "--tolerance", 0.3
    )
    assert evaluated.code == 0, evaluated.err
    assert "Lightness (within 0.3), 6 images" in evaluated.out
    again = cli(
        "eval", "lightness.py:Lightness", "--images", folder / "out/images", "--out", folder / "again"
    )
    assert again.code == 0, again.err
    assert "Lightness (within 0.5), 6 images" in again.out
