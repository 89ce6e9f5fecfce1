"""Every command and every snippet of the pages: what no other test runs is at least read as the command line reads it.

A command parses, and the recipes, studies, cards, components and settings that it names exist.
"""

import ast
import json
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from test_readme import parse
from typer.main import get_command

from maskrl import registry
from maskrl.cli import app
from maskrl.component import Needs
from maskrl.errors import RecipeError
from maskrl.recipe import SECTIONS, Recipe, read_recipe
from maskrl.recipes_at_hand import locate_recipe
from maskrl.reproductions.card import read_card

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r'^( *)```(\w*)(?: title="([^"]+)")?\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
SHELL, PYTHON = ("sh", "bash"), ("python", "py")
SEPARATORS = ("&&", "|", ";")

RUN_BY = {  # pages of which a test runs what can be run, and that test
    "README.md": "test_first_steps.py",
    "docs/scaling.md": "test_launchers.py",
    "docs/write-a-plugin.md": "test_write_a_plugin.py",
    "docs/tutorials/cluster.md": "test_tutorials.py",
    "docs/tutorials/own-reward.md": "test_tutorials.py",
    "docs/tutorials/papers-run.md": "test_tutorials.py",
    "docs/tutorials/sweep.md": "test_tutorials.py",
}
WRITTEN = {  # by the reader, or by a command of the same page: not in the repository
    "R": "stands for any recipe",
    "my_recipe.toml": "the reader's own",
    "red.toml": "the page has the command that writes it; test_tutorials.py runs it",
    "maskrl-brightness/brightness.toml": "`plugins new` writes it; test_plugins_new.py trains with it",
}
UNREAD = {  # settings that only their own page's files explain
    "prompts.train=prompts.txt": "written by the page; test_tutorials.py runs it",
    'reward={ name = "redness.py:Redness" }': "written by the page; test_tutorials.py runs it",
}
STUDIES = (
    "docs/quickstart.md",
    "docs/tutorials/sweep.md",
)  # which have blocks of settings that are no recipe's
PLACEHOLDERS = ("FILE", "FOLDER", "DIR")  # what a reader puts in place of them is theirs


class Block(NamedTuple):
    """A fenced block: page, line, language, title, text."""

    page: str
    line: int
    language: str
    title: str | None
    text: str

    @property
    def where(self):
        return f"{self.page}:{self.line}"


def blocks_of(page, text):
    """List the fenced blocks of a page."""
    return [
        Block(page, 1 + text[: found.start()].count("\n"), *found.groups()[1:])
        for found in FENCE.finditer(text)
    ]


def pages():
    return [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "docs").rglob("*.md")),
            *sorted((ROOT / "plugins").glob("*/README.md"))]  # fmt: skip


BLOCKS = [
    block
    for page in pages()
    for block in blocks_of(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"))
]


def commands_of(block):
    """List a block's simple commands as words; of a block that is no shell's, those that call maskrl."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        is_call = line.startswith("maskrl ") or "-m maskrl " in line
        if block.language not in SHELL and not (block.language in ("", "text") and is_call):
            continue
        words = [[]]
        for word in shlex.split(line, comments=True):
            if word in SEPARATORS:
                words.append([])
            else:
                words[-1].append(word)
        found += [one for one in words if one]
    return found


def call_of(words):
    """Return the arguments of a call of maskrl, by itself or through a launcher; None of another program's."""
    words = [word for word in words if not word.startswith("$")]  # a shell's variable, which may be empty
    if ">" in words:
        words = words[: words.index(">")]
    if words[0] == "maskrl":
        return words[1:]
    if "maskrl" in words and words[words.index("maskrl") - 1] == "-m":
        after = words[words.index("maskrl") + 1 :]
        return after[1:] if after[0] == "--" else after
    return None


EVALUATIONS_OF_PACKAGES = {
    name
    for file in (ROOT / "plugins").glob("*/pyproject.toml")
    for name in tomllib.loads(file.read_text())["project"]["entry-points"].get("maskrl.evaluations.v1", {})
}
CALLS = [
    pytest.param(call, id=f"{block.where} {shlex.join(call)}")
    for block in BLOCKS
    for words in commands_of(block)
    if (call := call_of(words)) is not None
]


def check(arguments):
    """Read a call as the command line does, and look for everything that it names."""
    if arguments == ["--install-completion"]:  # would write in the home folder as soon as it is read
        assert any("--install-completion" in option.opts for option in get_command(app).params)
        return
    if arguments[0] == "eval" and arguments[1] in EVALUATIONS_OF_PACKAGES:
        return  # whose options are known where it is installed; its own tests read its README
    context = parse(arguments)
    given = context.params
    recipe = given.get("recipe")
    if recipe is not None and recipe not in WRITTEN:
        locate_recipe(_in_the_clone(recipe))
    overrides = [one for one in given.get("overrides") or () if one not in UNREAD]
    if overrides and recipe not in WRITTEN:
        read_recipe(_in_the_clone(recipe or "shapes_clip"), overrides, Needs((), ()))
    if context.command.name == "sweep":
        _check_study(given["file"])
    if "smoke" in given:
        read_card(given["name"])
    for kind in ("detector", "reward"):
        _check_component(kind, given.get(kind))


def _in_the_clone(name):
    """Return the path of a recipe of the repository, or of one of its packages, which need not be installed."""
    package, _, inside = name.removeprefix("package:").partition("/")
    places = (ROOT / name, ROOT / "plugins" / package.replace("_", "-") / "src" / package / inside)
    return next((str(place) for place in places if place.is_file()), name)


def _check_study(study):
    titles = [block.title or block.text.partition("\n")[0].removeprefix("# ") for block in BLOCKS]
    assert (ROOT / study).is_file() or str(study) in titles, f"there is no study {study}"


def _check_component(kind, words):
    for word in [words] if isinstance(words, str) else words or ():
        if "=" not in word and word not in PLACEHOLDERS:
            registry.find(f"{kind}s", word)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_one_that_the_command_line_takes_and_what_it_names_is_there(call):
    check(call)


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language in PYTHON], ids=lambda one: one.where
)
def test_python_is_python(block):
    ast.parse(textwrap.dedent(block.text))


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "toml"], ids=lambda one: one.where
)
def test_toml_is_toml_and_its_settings_are_a_recipes(block):
    read_settings(block)


def read_settings(block):
    """Read a block's settings as overrides of a recipe; what components make of theirs is not looked at."""
    sections = {key: value for key, value in tomllib.loads(block.text).items() if isinstance(value, dict)}
    if set(sections) - set(Recipe.model_fields):
        assert block.page in STUDIES, (block.where, sections)
        return
    plain = [
        f"{section}.{key}={inline(value)}"
        for section, settings in sections.items()
        for key, value in settings.items()
        if section not in SECTIONS
    ]
    read_recipe("shapes_clip", plain, Needs((), ()))


def inline(value):
    """Write a value as TOML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {inline(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


@pytest.mark.parametrize("text", ["[grpo]\ngroup_siz = 4\n", '[ema]\ndecay = "much"\n'])
def test_a_planted_setting_is_seen(text):
    (block,) = blocks_of("page.md", f"```toml\n{text}```\n")
    with pytest.raises(RecipeError):
        read_settings(block)


def test_what_other_programs_are_told_is_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    programs = {"pip", "python3", "python", ".", "export", "jq", "hf", "ssh"}
    for block in BLOCKS:
        for words in commands_of(block):
            if call_of(words) is not None:
                continue
            assert words[0] in programs or (ROOT / words[0]).is_file(), (block.where, words)
            for word in words[1:]:
                for extra in re.findall(r"(?:maskrl|^\.)\[(\w+)\]", word):
                    assert extra in extras, (block.where, word)
                if word.startswith(("tests/", "benchmarks/", "plugins/")):
                    assert (ROOT / word).exists(), (block.where, word)


def test_every_language_is_one_that_is_looked_at():
    assert {block.language for block in BLOCKS} <= {*SHELL, *PYTHON, "toml", "text", "json", ""}
    assert len(CALLS) > 80


@pytest.mark.parametrize(("page", "test"), RUN_BY.items())
def test_what_is_said_to_be_run_is_read_by_its_test(page, test):
    assert Path(page).name in (ROOT / "tests" / test).read_text(encoding="utf-8")


def test_no_exception_outlives_its_page():
    words = {word for block in BLOCKS for command in commands_of(block) for word in command}
    assert [one for one in (*WRITTEN, *UNREAD) if one not in words] == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("maskrl train --recipe shapes_clop", "there is no recipe 'shapes_clop'"),
        ("maskrl train --recipe recipes/shapes_clap.toml", "there is no recipe"),
        ("maskrl train --recipe shapes_clip --set grpo.group_siz=4", "group_siz"),
        ("maskrl train --set grpo.group_size=many", "group_size"),
        ("maskrl train --recip shapes_clip", "No such option"),
        ("maskrl evaluate", "No such command"),
        ("pip install x && maskrl sweep benchmarks/studies/figure0.toml", "there is no study"),
        ("maskrl eval geneval --images FOLDER \\\n  --detector mask3former", "mask3former"),
        ("torchrun -m maskrl -- train --recipe showo_clap", "there is no recipe"),
        ("maskrl repro run quickstrat", "did you mean 'quickstart'"),
    ],
)
def test_a_planted_mistake_is_seen(line, reason):
    (block,) = blocks_of("page.md", f"Text.\n\n```sh\n{line}\n```\n")
    (call,) = filter(None, map(call_of, commands_of(block)))
    with pytest.raises(Exception, match=reason):
        check(call)


def test_a_planted_mistake_in_a_block_that_is_no_shells_is_seen():
    (block,) = blocks_of("page.md", "```\nmaskrl train --recipe shapes_clop\n```\n")
    with pytest.raises(RecipeError):
        check(call_of(commands_of(block)[0]))
