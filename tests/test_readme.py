"""What the README tells a newcomer to type is what is tested."""

import re
from pathlib import Path

from maskrl.recipe import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def test_ci_runs_the_second_command():
    assert commands()[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_link_and_picture_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_recipe_named_is_shipped():
    named = set(re.findall(r"recipes/(\w+)\.toml", README))
    assert named
    assert named <= set(shipped_recipes())
