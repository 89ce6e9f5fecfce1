"""The commands of the pages, run in the order of their page; what needs weights that are not here ends in one line."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from test_docs_commands import BLOCKS, RUN_BY, call_of, commands_of
from test_tutorials import BRIEF

from maskrl.recipe import read_recipe
from maskrl.training.loop import train

PAGES = {
    page: [
        call
        for block in BLOCKS
        if block.page == page
        for words in commands_of(block)
        if (call := call_of(words))
    ]
    for page in sorted({block.page for block in BLOCKS})
    # of the others whole tests of their own run what they say
    if page == "README.md" or (page not in RUN_BY and not page.startswith("plugins/"))
}
ELSEWHERE = {  # what does not end by itself, or only after hours, and the test that runs it
    "serve-reward": "test_remote.py",
    "urls=": "test_remote.py",
    "sweep ": "test_tutorials.py",
    "brightness": "test_write_a_plugin.py",
    "train --recipe showo_clip": "test_launchers.py",
    "watch": "test_report_browser.py",
    "repro run quickstart": "test_repro.py",
    "--install-completion": "test_docs_commands.py",
}
LACKING = {  # what a command says of that which is not here
    "mask2former": "weights",
    "ViT-L-14": "ViT-L-14",
    "eval clip_score --run": "ViT-L-14",
    "eval image_reward --run": "ImageReward",
    "fid_statistics val2014": "val2014",
    "--reference": "npz",
    "doctor --recipe showo_clip": "showo_clip could not run here",
}
SHORT = [change for change in BRIEF if "num_steps" not in change]  # results of other steps cannot be compared
FEW = [part for change in SHORT for part in ("--set", change)]
REWARD = """
from maskrl.interfaces import RewardModel


class MyReward(RewardModel):
    def score(self, images, prompts):
        return images[:, 0].mean(dim=(1, 2))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What the pages take for granted: runs, a recipe and a reward of the reader's own."""
    folder = tmp_path_factory.mktemp("world")
    fewer = [change for change in SHORT if change != "eval="]
    train(read_recipe("shapes_clip", fewer), folder / "runs" / "mine", resume=False, display=False)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page, calls in PAGES.items() if calls])
def test_the_commands_of_a_page_do_what_it_says(page, world, tmp_path, monkeypatch, cli):
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for name in ("other", "NAME", "NAME-DATE-TIME"):
        shutil.copytree("runs/mine", f"runs/{name}")
    Path("my_file.py").write_text(REWARD)
    Path("my_recipe.toml").write_text(cli("recipe", "show", "shapes_clip").out)
    for call in PAGES[page]:
        line = shlex.join(shortened(call))
        if any(part in line for part in ELSEWHERE):
            continue
        done = cli(*shortened(call))
        lacking = next((said for part, said in LACKING.items() if part in line), None)
        if lacking is None:
            assert done.code == 0, (line, done.err)
        else:
            assert done.code in (1, 2), (line, done.err)
            assert lacking in done.err + done.out, (line, done.err)
            assert len(done.err.splitlines()) <= 1, (line, done.err)


def shortened(call):
    """The call with fewer updates and images, and with what stands for something of the reader's."""
    words = [
        {"R": "my_recipe.toml", "FOLDER": "results/base/images", "DIR": "results/base/images"}.get(word, word)
        for word in call
    ]
    words = [re.sub(r"^recipes/(\w+)\.toml$", r"\1", word) for word in words]
    words = ["training.updates=3" if word == "training.updates=200" else word for word in words]
    if words[0] == "eval" and words[1] not in ("compare", "fid_statistics") and "--images" not in words:
        words += ["--images-per-prompt", "1"]
    if words[0] == "train" and "--recipe" in words:
        return [*words, *FEW, "--run", f"runs/{abs(hash(tuple(words)))}"]
    return [*words, *FEW] if words[:2] == ["check", "on-policy"] else words
