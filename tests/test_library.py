"""What ``import maskrl`` offers: a model to sample from, a trainer to step, a function as a reward."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_run import geneval_prompts

import maskrl
from maskrl.errors import PluginError, RecipeError
from maskrl.recipe import read_recipe
from maskrl.runtime.metrics import read_rows

TOY = Path(__file__).with_name("toy_run.py")
IN_A_FILE = """
def redness(images, prompts):
    assert all(isinstance(text, str) for text in prompts)
    return (images[:, 0] > 0.5).float().mean(dim=(1, 2))
"""


def whiteness(images, prompts):
    assert all(isinstance(text, str) for text in prompts)
    return images.amin(dim=1).mean(dim=(1, 2)).tolist()


def test_importing_it_loads_nothing_heavy_and_knows_its_names():
    code = (
        "import sys, maskrl; assert not {'torch', 'pydantic', 'typer'} & sys.modules.keys(), 'heavy';"
        "assert {'load', 'Trainer', 'Model', 'Images'} <= set(dir(maskrl)); maskrl.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        maskrl.lode  # noqa: B018


def test_no_image_comes_twice_unless_its_seed_is_named(toy_recipe):
    model = maskrl.load(toy_recipe)
    drawn = [model.sample("red tiles", n=3, steps=1) for _ in range(4)]
    pixels = torch.cat([images.pixels for images in drawn])
    again = maskrl.load(toy_recipe)
    assert torch.equal(pixels, torch.cat([again.sample("red tiles", n=3, steps=1).pixels for _ in range(4)]))
    other = maskrl.load(toy_recipe, seed=1)
    assert not torch.equal(pixels[:3], other.sample("red tiles", n=3, steps=1).pixels)
    named = [model.sample("red tiles", n=5, seed=7).pixels for _ in range(2)]
    assert torch.equal(*named)
    streams = [model._streams(3, None) for _ in range(4)]
    assert len({stream.path for some in streams for stream in some}) == 12
    assert not {s.path for s in streams[0]} & {s.path for s in model._streams(3, model._seed)}


def test_a_seed_is_that_of_the_command_line(toy_recipe, cli, tmp_path, monkeypatch):
    model = maskrl.load(toy_recipe)
    images = model.sample("red tiles", n=3, seed=5)
    assert (
        cli(
            "sample",
            "red tiles",
            "--recipe",
            toy_recipe,
            "--num",
            3,
            "--seed",
            5,
            "--out",
            tmp_path / "a.png",
        ).code
        == 0
    )
    from PIL import Image

    images.save(tmp_path / "b.png")
    first, second = (Image.open(tmp_path / f"{name}.png") for name in "ab")
    assert first.width == second.width  # captions differ, pictures do not
    cells = [
        image.crop((0, image.height - 100, image.width, image.height)).tobytes() for image in (first, second)
    ]
    assert cells[0] == cells[1]


def test_images_are_a_picture_with_a_column_for_every_prompt(toy_recipe, tmp_path):
    images = maskrl.load(toy_recipe).sample(["red", "blue sky"], n=2)
    assert (len(images), images.prompts) == (4, ["red", "red", "blue sky", "blue sky"])
    captions, rows = images._sheet()
    assert captions == ["red", "blue sky"]
    assert torch.equal(rows[1], images.pixels[[1, 3]])
    assert images._repr_png_().startswith(b"\x89PNG")
    assert images.save(tmp_path / "new" / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert [picture.size for picture in images] == [(12, 8)] * 4


@pytest.mark.parametrize("prompts", ["", [], ["red", " "], [3]])
def test_prompts_that_are_none_are_refused(toy_recipe, prompts):
    with pytest.raises(RecipeError, match="give a text, or several"):
        maskrl.load(toy_recipe).sample(prompts)
    with pytest.raises(RecipeError, match="n = 0"):
        maskrl.load(toy_recipe).sample("red", n=0)


def test_steps_are_the_updates_of_the_command_line(toy_recipe, cli, tmp_path):
    trainer = maskrl.Trainer(toy_recipe)
    metrics = [trainer.step(), trainer.step()]
    assert cli("train", "--recipe", toy_recipe, "--run", tmp_path / "run").code == 0
    rows = [row for row in read_rows(tmp_path / "run") if row["kind"] == "update"]
    for ours, theirs in zip(metrics, rows, strict=True):
        assert {key: value for key, value in ours.items() if "seconds" not in key}.items() <= theirs.items()
    with pytest.raises(RecipeError, match=r"training\.updates = 2 are made; for more") as refused:
        trainer.step()
    assert '"training.updates": N' in str(refused.value)
    more = maskrl.Trainer(toy_recipe, settings={"training.updates": 3})
    assert [more.step()["loss"] for _ in range(3)]
    painted = trainer.sample("red tiles", n=2, seed=0).pixels
    run = maskrl.load(tmp_path / "run").sample("red tiles", n=2, seed=0).pixels
    assert torch.equal(painted, run)


def test_a_model_and_a_trainer_are_evaluated_as_the_command_line_does(toy_recipe, cli, tmp_path):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    section = f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 1\n'
    toy_recipe.write_text(toy_recipe.read_text() + section)
    report = maskrl.load(toy_recipe).evaluate("geneval")
    assert cli("eval", "geneval", "--recipe", toy_recipe, "--out", tmp_path / "out").code == 0
    saved = json.loads((tmp_path / "out/geneval/summary.json").read_text())
    assert report.headline.mean == saved["numbers"]["overall"]["mean"]
    trainer = maskrl.Trainer(toy_recipe)
    assert trainer.evaluate("geneval", images_per_prompt=2).result.images == 2 * report.result.images
    assert trainer.evaluate("reward").result.label == "Reward Red"
    with pytest.raises(RecipeError, match="no evaluation is called 'genevla'; did you mean 'geneval'"):
        trainer.evaluate("genevla")


# a function as a reward


def test_a_function_of_a_session_trains_and_its_run_says_that_no_file_holds_it(toy_recipe, cli, tmp_path):
    trainer = maskrl.Trainer(toy_recipe, reward=whiteness)
    images = trainer.sample("red tiles", n=3)
    assert trainer.score(images).tolist() == pytest.approx(whiteness(images.pixels, images.prompts))

    def in_here(images, prompts):
        return whiteness(images, prompts)

    run = tmp_path / "run"
    maskrl.Trainer(toy_recipe, reward=in_here).train(run, display=False)
    name = "test_a_function_of_a_session_trains_and_its_run_says_that_no_file_holds_it.<locals>.in_here"
    assert f'name = "session:{name}"' in (run / "recipe.toml").read_text()
    alone = cli("train", "--run", run, "--resume", "--set", "training.updates=3")
    assert alone.code == 2
    assert "was a function of a session, which no file holds" in alone.err
    assert "reward=" in alone.err
    assert cli("sample", "red", "--run", run, "--out", tmp_path / "grid.png").code == 0  # needs no reward
    more = maskrl.Trainer(toy_recipe, reward=in_here, settings={"training.updates": 3})
    assert more.train(run, resume=True, display=False).updates == 3

    def in_here(images, prompts):
        return [-score for score in whiteness(images, prompts)]

    other = maskrl.Trainer(toy_recipe, reward=in_here, settings={"training.updates": 4})
    with pytest.raises(RecipeError, match="the contents of reward are not those"):
        other.train(run, resume=True, display=False)


def test_a_function_in_a_file_is_a_reward_of_recipes_too(toy_recipe, cli, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(IN_A_FILE)
    done = cli(
        "train",
        "--recipe",
        toy_recipe,
        "--set",
        f"reward.name={tmp_path}/mine.py:redness",
        "--run",
        tmp_path / "a",
    )
    assert done.code == 0, done.err
    assert cli("plugins", "check", f"{tmp_path}/mine.py:redness").out.count("keeps its contract") == 1
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine

    trained = maskrl.Trainer(toy_recipe, reward=mine.redness).train(tmp_path / "b", display=False)
    sections = [read_recipe(tmp_path / name / "recipe.toml").reward.name for name in "ab"]
    assert sections == [f"{tmp_path}/mine.py:redness"] * 2
    rows = [[row for row in read_rows(tmp_path / name) if row["kind"] == "update"] for name in "ab"]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert trained.updates == 2
    assert cli("train", "--run", tmp_path / "b", "--resume", "--set", "training.updates=3").code == 0


@pytest.mark.parametrize("answer", ["None", "images", "[0.0]"])
def test_a_function_that_gives_no_scores_is_named(toy_recipe, tmp_path, cli, answer):
    (tmp_path / "mine.py").write_text(f"def wrong(images, prompts):\n    return {answer}\n")
    done = cli("train", "--recipe", toy_recipe, "--set", f"reward.name={tmp_path}/mine.py:wrong")
    assert (done.code, "the reward 'wrong' breaks its contract" in done.err) == (3, True), done.err


def test_what_is_no_function_is_refused(toy_recipe):
    with pytest.raises(RecipeError, match="is no function"):
        maskrl.Trainer(toy_recipe, reward="clip")


def test_a_function_that_raises_is_named(toy_recipe):
    def broken(images, prompts):
        raise ValueError("mine")

    with pytest.raises(PluginError, match=r"the reward '.*broken' raised ValueError: mine"):
        maskrl.Trainer(toy_recipe, reward=broken).step()


# types


USER = """
import maskrl
from torch import Tensor

def score(images: Tensor, prompts: list[str]) -> list[float]:
    return [0.0 for _ in prompts]

model: maskrl.Model = maskrl.load("shapes")
images: maskrl.Images = model.sample("three red circles", n=4)
metrics: dict[str, float] = maskrl.Trainer("shapes_clip", reward=score).step()
reveal_type(model.evaluate("geneval").headline.mean)
model.sample(3)
"""


@pytest.mark.slow
def test_a_users_file_is_type_checked_from_outside(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "user.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=400, check=False)
    said = done.stdout
    assert 'Revealed type is "float"' in said or 'Revealed type is "builtins.float"' in said, said
    assert 'Argument 1 to "sample" of "Model" has incompatible type "int"' in said
    assert "Found 1 error" in said


DECORATED = """
import torch

K = 0.5


@torch.no_grad()
def redness(images, prompts, scale=1.0):
    return scale * (images[:, 0] > K).float().mean(dim=(1, 2))
"""


def test_a_decorated_function_with_a_default_is_found_in_its_file_and_told_by_it(
    toy_recipe, cli, tmp_path, monkeypatch
):
    (tmp_path / "mine2.py").write_text(DECORATED)
    monkeypatch.syspath_prepend(str(tmp_path))
    import mine2

    run = tmp_path / "run"
    maskrl.Trainer(toy_recipe, reward=mine2.redness).train(run, display=False)
    assert f'name = "{tmp_path}/mine2.py:redness"' in (run / "recipe.toml").read_text()
    assert [path.name for path in (run / "plugins").rglob("*.py") if path.name == "mine2.py"] == ["mine2.py"]
    assert cli("train", "--run", run, "--resume", "--set", "training.updates=3").code == 0
    (tmp_path / "mine2.py").write_text(DECORATED.replace("0.5", "0.7"))
    changed = cli("train", "--run", run, "--resume", "--set", "training.updates=4")
    assert (changed.code, "the contents of reward are not those" in changed.err) == (2, True), changed.err


def test_what_a_function_closes_over_is_part_of_it(toy_recipe, tmp_path):
    def make(sign):
        def signed(images, prompts):
            return [sign * score for score in whiteness(images, prompts)]

        return signed

    run = tmp_path / "run"
    maskrl.Trainer(toy_recipe, reward=make(1)).train(run, display=False)
    more = {"training.updates": 3}
    with pytest.raises(RecipeError, match="the contents of reward are not those"):
        maskrl.Trainer(toy_recipe, reward=make(-1), settings=more).train(run, resume=True, display=False)
    assert (
        maskrl.Trainer(toy_recipe, reward=make(1), settings=more)
        .train(run, resume=True, display=False)
        .updates
        == 3
    )


def test_settings_are_those_of_a_recipe_whatever_they_are(toy_recipe, tmp_path):
    settings = {
        "prompts.train": tmp_path / "prompts.txt",
        "reward": {"name": f"{TOY}:Red", "after": 99},
        "training.betas": [0.5, 0.9],
        "tracking.tensorboard": False,
        "grpo.kl_coef": None,
    }
    recipe = maskrl.Trainer(toy_recipe, settings=settings).recipe
    assert recipe.reward.config.after == 99
    assert recipe.training.betas == (0.5, 0.9)
    assert recipe.grpo.kl_coef == 0
    with pytest.raises(RecipeError, match="unknown key; did you mean 'group_size'"):
        maskrl.Trainer(toy_recipe, settings={"grpo.grop_size": 3})
