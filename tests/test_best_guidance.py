"""Evaluations at several guidances: what they paint, what is said at the end, what a command and a plan take of it."""

import pytest
from conftest import TOY
from toy_run import geneval_prompts

import maskrl
from maskrl.evals import live
from maskrl.evals.results import Report, Result, read_report, read_result
from maskrl.evaluations.geneval import GenEvalBenchmark
from maskrl.evaluations.numbers import differences
from maskrl.evaluations.scores import MeanReward
from maskrl.interfaces import Number
from maskrl.recipe import read_recipe
from maskrl.runtime.folder import flat
from maskrl.training.best_guidance import best_of
from maskrl.training.loop import train
from maskrl.training.plan import plan

SECTION = f'name = "geneval"\nprompts = "geneval.jsonl"\ndetector = "{TOY}:Tiles"\nimages_per_prompt = 2\n'


@pytest.fixture
def recipe(toy_recipe, tmp_path):
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    sections = "".join(f"[eval.{label}]\n{SECTION}{more}" for label, more in LABELS.items())
    toy_recipe.write_text(toy_recipe.read_text() + sections)
    return toy_recipe


LABELS = {
    "geneval": "",
    "g0": "guidance = 0.0\n",
    "g4": "guidance = 4.0\n",
    "fewer": "guidance = 4.0\nnum_steps = 2\n",
}


def report(guidance, mean, **settings):
    result = Result("geneval", "GenEval", {"overall": Number(mean, 0.1)}, 9, {}, {}, {})
    about = {"guidance": guidance, "steps": 8, **settings}
    return Report(Result(**{**vars(result), "settings": about}), ())


def test_each_is_best_where_it_is_best():
    kinds = dict.fromkeys("abcd", GenEvalBenchmark)
    before = {
        "a": report(1.0, 0.3),
        "b": report(3.0, 0.5),
        "c": report(5.0, 0.4),
        "d": report(3.0, 0.9, steps=2),
    }
    after = {
        "a": report(1.0, 0.7),
        "b": report(3.0, 0.6),
        "c": report(5.0, 0.5),
        "d": report(3.0, 0.9, steps=2),
    }
    (found,) = best_of(kinds, before, after)
    assert (found.guidance_before, found.guidance_after) == (3.0, 1.0)
    assert (found.before.mean, found.after.mean) == (0.5, 0.7)
    assert found.difference.mean == pytest.approx(0.2)
    assert best_of(kinds, {"a": before["a"]}, {"a": after["a"]}) == []


def test_smaller_may_be_better():
    class Distance(MeanReward):
        larger_is_better = False

    kinds = dict.fromkeys("ab", Distance)
    before, after = (
        {"a": report(1.0, first), "b": report(3.0, second)} for first, second in ((9.0, 7.0), (2.0, 5.0))
    )
    (found,) = best_of(kinds, before, after)
    assert (found.before.mean, found.after.mean) == (7.0, 2.0)


def test_a_run_says_each_at_its_best(recipe, tmp_path, capsys):
    run = tmp_path / "run"
    train(read_recipe(recipe), run, resume=False, display=True)
    said = " ".join(capsys.readouterr().out.split())
    results = {
        (label, when): read_report(run / "eval" / label / when)
        for label in LABELS
        for when in ("before", "after")
    }
    guidances = {label: results[label, "after"].result.settings["guidance"] for label in LABELS}
    assert guidances == {"geneval": 1.0, "g0": 0.0, "g4": 4.0, "fewer": 4.0}  # the toy's own is 1
    best = {
        when: max(("geneval", "g0", "g4"), key=lambda label: results[label, when].headline.mean)
        for when in ("before", "after")
    }
    first, second = results[best["before"], "before"], results[best["after"], "after"]
    difference = second.headline.mean - first.headline.mean
    error = differences(GenEvalBenchmark, first.rows, second.rows)["overall"].se
    assert f"base at its best guidance ({guidances[best['before']]:g}): {first.headline.mean:.3f}" in said
    assert f"trained at its best ({guidances[best['after']]:g}): {second.headline.mean:.3f}" in said
    assert f"difference {difference:+.3f} ± {error:.3f}" in said
    tasks = {}
    for old, new in zip(first.rows, second.rows, strict=True):
        tasks.setdefault(old["tag"], []).append(new["correct"] - old["correct"])
    paired = sum(sum(values) / len(values) for values in tasks.values()) / len(tasks)
    assert difference == pytest.approx(paired)
    found = maskrl.load(run).evaluate("g4")
    assert found.numbers == results["g4", "after"].numbers


@pytest.mark.slow
def test_a_plan_counts_the_passes_of_each_section():
    """Without guidance a step of an image is one pass, with guidance two."""

    def flops(*guidances):
        changes = [
            f"eval.e{i}={{ name = 'clip_score', prompts = 'shapes_geneval', guidance = {w} }}"
            for i, w in enumerate(guidances)
        ]
        made = plan(read_recipe("shapes_clip", ["eval=", *changes]), 20, 1)
        return made.evaluation_flops, made.evaluated

    (none, images), (some, _), (both, twice) = flops(0.0), flops(2.0), flops(0.0, 2.0)
    assert (both, twice) == (none + some, 2 * images)
    assert 1.5 * none < some <= 2 * none


def test_a_plan_counts_shared_images_once():
    section = "prompts = 'shapes_geneval', guidance = 1.0"
    changes = [
        f"eval.a={{ name = 'geneval', {section}, detector = 'shapes', images_per_prompt = 2, every = 4, subset = 1 }}",
        f"eval.b={{ name = 'cleanliness', {section}, images_per_prompt = 3, every = 8, subset = 1 }}",
    ]
    made = plan(read_recipe("shapes_clip", ["eval=", "training.updates=17", *changes]), 20, 1)
    tasks = 6  # after updates 4 and 12 two of each, after 8 and 16 three
    assert made.evaluated == 2 * 3 * 240 + (2 + 3 + 2 + 3) * tasks


def test_sections_that_see_the_same_images_have_them_painted_once(toy_recipe, tmp_path, monkeypatch):
    """Two of equal images, one of fewer of them, one at another guidance; every second update also in between."""
    (tmp_path / "geneval.jsonl").write_text(geneval_prompts())
    often = "every = 1\nsubset = 1\n"
    sections = {"geneval": often, "same": often, "one": "images_per_prompt = 1\n", "g4": "guidance = 4.0\n"}
    toy_recipe.write_text(
        toy_recipe.read_text()
        + "".join(
            f"[eval.{label}]\n{SECTION.replace('images_per_prompt = 2', '') if label == 'one' else SECTION}{more}"
            for label, more in sections.items()
        )
    )
    painted = []
    paint = live.sample_pairs
    monkeypatch.setattr(
        live,
        "sample_pairs",
        lambda generator, prompts, pairs, *rest: (
            painted.extend(pairs) or paint(generator, prompts, pairs, *rest)
        ),
    )
    recipe = read_recipe(toy_recipe)
    result = train(recipe, tmp_path / "run", resume=False, display=False)
    prompts = len(geneval_prompts().splitlines())
    between = len({row["tag"] for row in result.before["geneval"].rows}) * (recipe.training.updates - 1)
    assert len(painted) == 2 * (2 * prompts + 2 * prompts) + 2 * between
    for reports in (result.before, result.after):
        assert reports["geneval"].rows == reports["same"].rows != reports["g4"].rows
        first = [row for row in reports["same"].rows if row["filename"].endswith("00000.png")]
        assert list(reports["one"].rows) == first


def test_a_command_paints_at_the_sections_guidance_or_at_the_one_it_is_given(cli, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("[eval.geneval]", "[eval.geneval]\nguidance = 2.0"))

    def painted(name, *options):
        done = cli("eval", "geneval", "--recipe", recipe, "--out", tmp_path / name, *options)
        assert done.code == 0, done.err
        return read_result(tmp_path / name / "geneval").settings["guidance"]

    assert painted("own") == 2.0
    assert painted("given", "--guidance", "3") == 3.0


def test_beside_images_that_are_there_guidance_is_refused(cli, recipe, tmp_path):
    done = cli("eval", "geneval", "--images", tmp_path, "--set", "eval.geneval.guidance=3")
    assert (done.code, "nothing is painted, so it would be ignored" in done.err) == (2, True)


def test_a_run_keeps_its_guidance_and_a_recipe_without_is_what_it_was(cli, recipe, tmp_path):
    run = tmp_path / "run"
    train(read_recipe(recipe), run, resume=False, display=False)
    changed = cli("train", "--run", run, "--resume", "--set", "eval.g4.guidance=5.0")
    assert (changed.code, "eval.g4.guidance is 4.0 there and 5.0 here" in changed.err) == (2, True)
    again = cli("train", "--run", run, "--resume", "--set", "training.updates=3")
    assert again.code == 0, again.err
    saved = (run / "recipe.toml").read_text().partition("[eval.g0]")[0]
    assert "guidance =" not in saved  # no setting that older versions do not know, where none was written
    assert flat(read_recipe(run / "recipe.toml"))["eval.geneval.guidance"] is None
