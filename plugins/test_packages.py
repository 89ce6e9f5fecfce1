"""What holds for every package here: what it offers, what it imports, and that its README's recipe is valid."""

import re
import tomllib
from pathlib import Path

import pytest

from maskrl.eval_section import EvalConfig
from maskrl.registry import INTERFACE_VERSION, KINDS, Offer
from maskrl.testing import check_class

PUBLIC = {
    "clip",
    "clip_text",
    "component",
    "counting",
    "cut_prompts",
    "diffusers_folder",
    "errors",
    "flops",
    "grpo.confidence",
    "grpo.guidance",
    "interfaces",
    "pixels",
    "quiet",
    "testing",
    "types",
    "weights",
}
FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/pyproject.toml"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request):
    """The folder of each package."""
    return request.param


def read(folder):
    """Return its project table, and its entry points as maskrl reads them once it is installed."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offers = []
    for group, entries in project["entry-points"].items():
        kind, interface = re.fullmatch(r"maskrl\.(\w+)\.v(\d+)", group).groups()
        package = project["name"], project["version"]
        offers += [Offer(kind, name, *package, target, int(interface)) for name, target in entries.items()]
    return project, offers


def test_it_is_named_after_its_folder(folder):
    assert read(folder)[0]["name"] == folder.name


def test_its_components_load(folder):
    _, offers = read(folder)
    assert {offer.interface for offer in offers} == {INTERFACE_VERSION}
    for offer in offers:
        check_class(offer.load())


def test_it_imports_what_a_plugin_may(folder):
    sources = [path.read_text(encoding="utf-8") for path in (folder / "src").rglob("*.py")]
    imported = {
        name for text in sources for name in re.findall(r"(?:from|import) maskrl\.(grpo\.\w+|\w+)", text)
    }
    assert sources
    assert imported <= PUBLIC


def test_the_recipe_of_its_readme_is_valid(folder):
    text = (folder / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    (offer,) = read(folder)[1]
    section = read_section(tomllib.loads(snippet), offer)
    offer.load().Config.model_validate(section)


def read_section(recipe, offer):
    """Return a component's own settings; an evaluation's stand beside those that every evaluation has."""
    if offer.kind == "evaluations":
        section = recipe["eval"][offer.name]
        return {key: value for key, value in section.items() if key not in EvalConfig.model_fields}
    section = recipe[KINDS[offer.kind].label]
    assert section.pop("name") == offer.name
    return section
