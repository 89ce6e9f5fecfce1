"""What the README tells a newcomer to type is what is tested."""

import re
import shlex
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from maskrl.cli import app
from maskrl.recipes_at_hand import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line.split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def calls():
    """List the arguments of every call of maskrl, by itself or through torchrun."""
    found = [re.fullmatch(r"(?:.*&& )?(?:maskrl|torchrun .* maskrl --) (.+)", line) for line in commands()]
    return [call[1] for call in found if call]


def parse(arguments):
    """Read arguments as the command line does, and run nothing."""
    command = get_command(app)
    while isinstance(command, TyperGroup):
        context = command.make_context("maskrl", list(arguments))
        _, command, arguments = command.resolve_command(context, list(arguments))
    return command.make_context("maskrl", list(arguments))


def test_ci_runs_the_second_command():
    assert commands()[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_call_is_found():
    assert len(calls()) == sum("maskrl" in re.sub(r'-e \S+|"[^"]*"', "", line) for line in commands())
    assert len(calls()) > 10


@pytest.mark.parametrize("call", calls())
def test_every_call_is_one_that_the_command_line_takes(call):
    parse(shlex.split(call))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("teach", "No such command"),
        ("eval genevla", "No such command"),
        ("eval geneval --imagse DIR", "No such option"),
        ("eval geneval --images-per-prompt many", "integer"),
        ("eval compare one", "Missing"),
        ("train --resume x", "unexpected"),
    ],
)
def test_a_call_that_it_does_not_take_is_seen(call, message):
    with pytest.raises(Exception, match=message):
        parse(shlex.split(call))


def test_what_is_compared_was_made_before():
    contexts = [parse(shlex.split(call)) for call in calls()]
    made = {context.params["out"] for context in contexts if context.command.name == "geneval"}
    (compared,) = (context.params for context in contexts if context.command.name == "compare")
    assert {compared["first"].parent, compared["second"].parent} <= made
    trained = {context.params["run"] for context in contexts if context.command.name == "train"}
    judged = {context.params["run"] for context in contexts if context.command.name == "geneval"}
    assert judged - {None} <= trained


def test_every_link_and_picture_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_recipe_named_is_shipped():
    named = set(re.findall(r"recipes/(\w+)\.toml", README))
    assert named
    assert named <= set(shipped_recipes())
