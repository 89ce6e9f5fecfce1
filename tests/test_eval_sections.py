"""Sections [eval.NAME], commands and calls that mean the same evaluation: what one says, the others heed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_run import geneval_prompts

import maskrl
from maskrl.errors import RecipeError
from maskrl.evals.results import read_result
from maskrl.runtime.metrics import read_rows

TOY = Path(__file__).with_name("toy_run.py")
COLOURS = Path(__file__).with_name("benchmark_package") / "colours.py"
BENCH = '''
from maskrl.component import ComponentConfig
from maskrl.interfaces import ImageEvaluation


class Bench(ImageEvaluation):
    """How red."""

    takes = ("seed",)
    paths = ("file",)

    class Config(ComponentConfig):
        k: float = 1.0
        seed: int = 0
        words: tuple[str, ...] = ()
        file: str | None = None

    def label(self, prompts, images):
        return f"Bench {self.config.k:g} {self.config.seed} {len(self.config.words)}"

    def judge(self, images, prompts):
        return [{"red": self.config.k * float(image[0].mean())} for image in images]
'''


@pytest.fixture
def world(toy_recipe, tmp_path):
    (tmp_path / "bench.py").write_text(BENCH)
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    return toy_recipe


def add(recipe, section):
    recipe.write_text(f"{recipe.read_text()}{section}\n")


def numbers(folder):
    return {name: number.mean for name, number in read_result(folder).numbers.items()}


def test_what_a_section_leaves_out_is_the_recipes_before_and_after_a_resume(cli, world, tmp_path):
    world.write_text("seed = 7\n" + world.read_text())
    add(world, '[eval.bench]\nname = "bench.py:Bench"\nprompts = "prompts.txt"')
    run = tmp_path / "run"
    done = cli("train", "--recipe", world, "--run", run)
    assert "Bench 1 7 0 before" in done.out, done.err
    again = cli("train", "--run", run, "--resume", "--set", "training.updates=3")
    assert again.code == 0, again.err
    assert maskrl.load(run).evaluate("bench").result.label == "Bench 1 7 0"
    set_to = cli("train", "--recipe", world, "--run", tmp_path / "other", "--set", "eval.bench.seed=0")
    assert "Bench 1 0 0 before" in set_to.out


def test_a_command_finds_the_section_that_names_its_evaluation(cli, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add(world, '[eval.first]\nname = "reward"\nprompts = "prompts.txt"\nimages_per_prompt = 2')
    add(
        world,
        '[eval.mine]\nname = "bench.py:Bench"\nprompts = "prompts.txt"\nk = 100.0\nimages_per_prompt = 3',
    )
    done = cli(
        "eval", "bench.py:Bench", "--recipe", world, "--out", tmp_path / "out", "--words", '["a", "b"]'
    )
    assert done.code == 0, done.err
    assert "Bench 100 0 2, 9 images" in done.out
    taken = cli("eval", "reward", "--recipe", world, "--out", tmp_path / "reward")
    assert (taken.code, "Reward Red, 6 images" in taken.out) == (0, True), taken.err
    add(world, '[eval.geneval]\nname = "reward"\nprompts = "prompts.txt"')
    clash = cli("eval", "geneval", "--recipe", world)
    assert (clash.code, "calls another evaluation 'geneval'" in clash.err) == (2, True)


def test_a_section_of_the_recipe_is_followed_as_in_training_and_not_another_ones(cli, world, tmp_path):
    add(world, '[eval.first]\nname = "reward"\nprompts = "prompts.txt"\nnum_steps = 2')
    add(world, '[eval.reward]\nprompts = "prompts.txt"')
    run = tmp_path / "run"
    assert cli("train", "--recipe", world, "--run", run).code == 0
    assert cli("eval", "reward", "--run", run, "--out", tmp_path / "out").code == 0
    after, found = (
        read_result(folder).settings for folder in (run / "eval/reward/after", tmp_path / "out/reward")
    )
    assert after == found
    assert after["num_steps"] == 3


@pytest.mark.parametrize("label", ["update", "kind", "when"])
def test_a_section_is_not_called_as_a_column_of_the_metrics_is(cli, world, label):
    add(world, f'[eval.{label}]\nname = "reward"\nprompts = "prompts.txt"')
    refused = cli("recipe", "check", world)
    assert (refused.code, f"a section cannot be called '{label}'" in refused.err) == (2, True)


def test_a_section_may_be_called_as_a_number_of_another(cli, world, tmp_path):
    add(world, '[eval.bench]\nname = "bench.py:Bench"\nprompts = "prompts.txt"')
    add(world, '[eval.bench_red]\nname = "bench.py:Bench"\nprompts = "prompts.txt"\nk = 2.0')
    run = tmp_path / "run"
    assert cli("train", "--recipe", world, "--run", run).code == 0
    again = cli("train", "--run", run, "--resume", "--set", "training.updates=3")
    assert again.code == 0, again.err


def test_a_command_whose_section_is_left_out_says_so(cli, world, tmp_path):
    add(world, '[eval.reward]\nprompts = "prompts.txt"')
    refused = cli("eval", "reward", "--recipe", world, "--set", "eval.reward=")
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
    assert "leaves out what this command makes" in refused.err


def test_a_model_and_the_command_line_sample_in_as_many_steps(cli, world, tmp_path):
    add(world, '[eval.reward]\nprompts = "prompts.txt"\nnum_steps = 2')
    ours = maskrl.load(world).sample("red tiles", n=4, seed=3)
    assert (
        cli(
            "sample", "red tiles", "--recipe", world, "--num", 4, "--seed", 3, "--out", tmp_path / "a.png"
        ).code
        == 0
    )
    ours.save(tmp_path / "b.png")
    bottoms = [np.asarray(Image.open(tmp_path / f"{name}.png"))[-100:] for name in "ab"]
    assert np.array_equal(*bottoms)


def test_an_evaluation_of_a_model_is_that_of_its_section_wherever_it_is_called(world, tmp_path, monkeypatch):
    (tmp_path / "w.txt").write_text("x")
    add(world, '[eval.bench]\nname = "bench.py:Bench"\nprompts = "prompts.txt"\nfile = "w.txt"\nk = 3.0')
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    model = maskrl.load(world)
    assert model.evaluate("bench").result.label == "Bench 3 0 0"
    assert model.evaluate("bench", prompts=["red", "blue"], images_per_prompt=1).result.images == 2
    assert model.evaluate(f"{tmp_path}/bench.py:Bench", prompts=tmp_path / "prompts.txt").result.images == 12
    assert model.evaluate("maskrl/reward", prompts=["red"]).result.images == 4
    for wrong in ([], [" "], [3]):
        with pytest.raises(RecipeError, match="give the name of a prompt set, a file, or a list of texts"):
            model.evaluate("bench", prompts=wrong)


def test_an_evaluation_with_settings_called_as_the_engines_is_refused(cli, world, tmp_path):
    code = BENCH.replace(
        "    def judge", "    def settings(self):\n        return {'seed': 3}\n\n    def judge"
    )
    (tmp_path / "bench.py").write_text(code)
    refused = cli(
        "eval", f"{tmp_path}/bench.py:Bench", "--recipe", world, "--prompts", tmp_path / "prompts.txt"
    )
    assert (refused.code, "settings returned 'seed', which says how images were painted" in refused.err) == (
        3,
        True,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "    def label",
            "    def __init__(self, config):\n        raise ValueError('mine')\n\n    def label",
        ),
        ("class Bench(ImageEvaluation):", "class Bench(ImageEvaluation):\n    modules = None"),
    ],
)
def test_an_evaluation_that_cannot_be_built_is_a_line(cli, world, tmp_path, old, new):
    (tmp_path / "bench.py").write_text(BENCH.replace(old, new))
    command = ("eval", f"{tmp_path}/bench.py:Bench", "--recipe", world, "--prompts", tmp_path / "prompts.txt")
    refused = cli(*command)
    assert (refused.code, refused.err.count("\n")) == (3, 1), refused.err


def test_an_empty_folder_has_nothing_to_judge(cli, tmp_path, world):
    code = BENCH.replace("    takes =", "    needs_prompts = False\n    takes =")
    (tmp_path / "bench.py").write_text(code)
    (tmp_path / "empty").mkdir()
    refused = cli("eval", f"{tmp_path}/bench.py:Bench", "--images", tmp_path / "empty")
    assert (refused.code, "no image, and there is nothing to judge" in refused.err) == (2, True)


# two packages, one name


def test_another_packages_evaluation_of_the_same_name_is_another(cli, install, world, tmp_path):
    add(world, f'[eval.geneval]\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 1')
    assert cli("eval", "geneval", "--recipe", world, "--out", tmp_path / "a").code == 0
    before = numbers(tmp_path / "a/geneval")
    install("other-bench", BENCH, {"maskrl.evaluations.v1": {"geneval": "other_bench:Bench"}})
    compared = cli("eval", "compare", tmp_path / "a/geneval", tmp_path / "a/geneval")
    assert (compared.code, compared.err) == (0, "")
    mine = cli("eval", "other-bench/geneval", "--images", tmp_path / "a/images", "--out", tmp_path / "a")
    assert mine.code == 2
    assert "holds results of the evaluation 'geneval', not of 'other-bench/geneval'" in mine.err
    assert numbers(tmp_path / "a/geneval") == before
    assert (
        cli("eval", "other-bench/geneval", "--images", tmp_path / "a/images", "--out", tmp_path / "b").code
        == 0
    )
    across = cli("eval", "compare", tmp_path / "a/geneval", tmp_path / "b/geneval")
    assert (across.code, "different evaluations" in across.err) == (2, True)


def test_listing_imports_no_package(cli, install, tmp_path, monkeypatch):
    package = tmp_path / "site" / "loud"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "bench.py").write_text(BENCH)
    install("loud-bench", "", {"maskrl.evaluations.v1": {"loud": "loud.bench:Bench"}})
    monkeypatch.setenv("COLUMNS", "120")
    shown = cli("eval", "--help")
    assert shown.code == 0
    assert "How red." in shown.out


# state around a command


def test_a_companion_that_changed_has_the_row_judged_again(cli, tmp_path, monkeypatch):
    import built
    import spots
    from test_probe import paint

    from maskrl.evals.folder import evaluate_folder
    from maskrl.evals.images import open_folder

    folder, out = paint(tmp_path / "images"), tmp_path / "out"
    asked = built.relative_correctness(
        spots.Spots(spots.Spots.Config()), spots.Counting(spots.Counting.Config())
    )
    beside = asked.companions([prompt for prompt, _ in open_folder(folder).pairs()])
    names = [name for _, name in open_folder(folder).pairs()]
    whole, calls = spots.Counting.score, []

    def mortal(self, images, prompts):
        calls.append(1)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return whole(self, images, prompts)

    monkeypatch.setattr(spots.Counting, "score", mortal)
    with pytest.raises(KeyboardInterrupt):
        evaluate_folder(asked, open_folder(folder), out, {}, batch=1)
    monkeypatch.setattr(spots.Counting, "score", whole)
    shutil.copy(
        folder / names[beside[0] + 1], folder / names[beside[0]]
    )  # another image in the companion's place
    resumed = evaluate_folder(asked, open_folder(folder), out, {}, batch=1).rows[0]
    anew = evaluate_folder(asked, open_folder(folder), tmp_path / "anew", {}, batch=1).rows[0]
    assert resumed == anew


def test_results_with_other_numbers_are_compared_in_what_they_share(cli, tmp_path, world):
    for name, more in (("a", ""), ("b", ', "blue": 0.0')):
        (tmp_path / "bench.py").write_text(
            BENCH.replace('"red": self', '"red": self').replace("mean())}", "mean())" + more + "}")
        )
        command = (
            "eval",
            f"{tmp_path}/bench.py:Bench",
            "--recipe",
            world,
            "--prompts",
            tmp_path / "prompts.txt",
        )
        done = cli(*command, "--out", tmp_path / name)
        assert done.code == 0, done.err
        summary = tmp_path / name / "Bench/summary.json"
        saved = json.loads(summary.read_text())
        saved["settings"].pop("evaluation")  # as if settings() left the source out
        summary.write_text(json.dumps(saved))
        import sys

        for module in [module for module in sys.modules if module.startswith("maskrl_local_")]:
            del sys.modules[module]
    for pair in (("a", "b"), ("b", "a")):
        shown = cli("eval", "compare", *(tmp_path / name / "Bench" for name in pair))
        assert (shown.code, "red" in shown.out, "blue" in shown.out) == (0, True, False), shown.err


def test_a_distribution_of_a_run_is_compared_with_that_of_a_command(cli, world, tmp_path):
    shutil.copy(COLOURS, tmp_path)
    add(world, '[eval.colours]\nname = "colours.py:Colours"\nprompts = "prompts.txt"')
    assert cli("train", "--recipe", world, "--run", tmp_path / "run").code == 0
    assert (
        cli(
            "eval", f"{tmp_path}/colours.py:Colours", "--run", tmp_path / "run", "--out", tmp_path / "out"
        ).code
        == 0
    )
    compared = cli("eval", "compare", tmp_path / "run/eval/colours/after", tmp_path / "out/Colours")
    assert compared.code == 0, compared.err
    assert [row for row in read_rows(tmp_path / "run") if "colours" in row]


def test_two_sections_of_one_evaluation_are_told_apart_in_what_a_run_says(cli, world, tmp_path):
    add(
        world, '[eval.easy]\nname = "reward"\nprompts = "prompts.txt"\n[eval.reward]\nprompts = "prompts.txt"'
    )
    said = cli("train", "--recipe", world, "--run", tmp_path / "run").out
    for text in ("easy: Reward Red before: ", "easy: Reward Red before and after (12 images each)"):
        assert text in said
    assert "\nReward Red before: " in said


def test_an_evaluation_in_between_that_has_too_few_images_is_refused_before_any_update(cli, world, tmp_path):
    shutil.copy(COLOURS, tmp_path)
    section = '[eval.colours]\nname = "colours.py:Colours"\nprompts = "prompts.txt"\nimages_per_prompt = 1\nsubset = 1'
    add(world, section)
    refused = cli("train", "--recipe", world, "--run", tmp_path / "run", "--set", "eval.colours.every=1")
    assert (refused.code, "1 image, and a covariance needs two" in refused.err) == (2, True), refused.err
    assert not (tmp_path / "run/metrics.jsonl").exists()
    assert cli("train", "--recipe", world, "--run", tmp_path / "run").code == 0


def test_rows_that_an_earlier_version_left_unfinished_say_what_to_do(cli, tmp_path):
    import built
    import spots

    from maskrl.errors import TrainingError

    asked = built.relative_correctness(
        spots.Spots(spots.Spots.Config()), spots.Counting(spots.Counting.Config())
    )
    row = {
        "filename": "00000/0",
        "correct": True,
        "score": 1.0,
        "captions": [1, 2, 3],
        "captions_on_control": [0] * 3,
    }
    with pytest.raises(TrainingError, match="delete the folder 'unfinished'"):
        asked.others([row])
