"""The tutorials, followed in an empty folder: every file written, every command run, with fewer updates and images."""

import re
import shlex
from pathlib import Path

import pytest
from test_readme import parse

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
BLOCK = re.compile(r'```(\w+)(?: title="([^"]+)")?\n(.*?)```', re.DOTALL)
BRIEF = [
    "training.updates=1",
    "training.prompts_per_update=2",
    "grpo.group_size=2",
    "grpo.num_steps=4",
    "eval=",
]
FEW = [part for change in BRIEF for part in ("--set", change)]


def blocks(name):
    return [match.groups() for match in BLOCK.finditer((TUTORIALS / name).read_text(encoding="utf-8"))]


def follow(name, cli, shorten=lambda words: words):
    """Write and run what a page says, in its order, in the working directory: what the commands printed."""
    said = {}
    for language, title, text in blocks(name):
        if title:
            Path(title).write_text(text, encoding="utf-8")
        elif language == "bash":
            for line in text.splitlines():
                words, into = shlex.split(line.split(" #")[0]), None
                if ">" in words:
                    words, into = words[: words.index(">")], words[-1]
                assert words[0] == "maskrl", line
                result = cli(*shorten(words[1:]))
                assert result.code == 0, (line, result.err)
                said[line] = result.out + result.err
                if into:
                    Path(into).write_text(result.out, encoding="utf-8")
    return said


def test_own_prompts_and_reward(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def shorten(words):
        return [*words, *FEW] if words[0] == "train" or words[:2] == ["check", "on-policy"] else words

    said = follow("own-reward.md", cli, shorten)
    assert "keeps its contract" in next(out for line, out in said.items() if "plugins check" in line)
    assert "redness.py:Redness" in Path("red.toml").read_text()
    assert Path("runs/red/samples/before_after.png").exists()
    rows = Path("runs/watched/metrics.jsonl").read_text()
    assert "reward_mean" in rows
    assert Path("after.png").stat().st_size > 1000


@pytest.mark.long
def test_a_sweep(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = {title: text for _, title, text in blocks("sweep.md")}["steps.toml"]
    assert "seeds = [0, 1, 2]" in text
    less = "\n".join(["training.prompts_per_update = 2", "grpo.group_size = 2", 'eval = ""', ""])
    short = text.replace("seeds = [0, 1, 2]", "seeds = [0]").replace("updates = 40\n", f"updates = 1\n{less}")
    short = re.sub(r"eval\.geneval.*\n", "", short)
    page = (TUTORIALS / "sweep.md").read_text(encoding="utf-8").replace(text, short)
    monkeypatch.setattr(Path, "read_text", _reading(page))
    said = follow("sweep.md", cli)
    assert "half" in list(said.values())[-1]


def _reading(page):
    original = Path.read_text

    def read_text(self, *args, **kwargs):
        return page if self.name == "sweep.md" else original(self, *args, **kwargs)

    return read_text


@pytest.mark.long
@pytest.mark.parametrize("name", ["papers-run.md", "cluster.md"])
def test_what_runs_without_the_hardware(name, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = follow(name, cli)
    assert any("GiB" in out for out in said.values())


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.md")), ids=lambda path: path.name)
def test_every_call_is_one_that_the_command_line_takes(path):
    lines = [line for _, title, text in blocks(path.name) if not title for line in text.splitlines()]
    found = [re.search(r"(?:^maskrl|-m maskrl --) ([^\\$>]+?)(?: #.*)?$", line) for line in lines]
    calls = [call[1] for call in found if call]
    assert calls
    for call in calls:
        parse(shlex.split(call))


def test_every_tutorial_is_followed():
    named = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in TUTORIALS.glob("*.md") if path.name not in named] == []
