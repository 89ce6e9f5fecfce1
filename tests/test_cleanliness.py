"""Clean pictures pass, also through the tokenizer; every planted fault is refused; numbers are by task and overall."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_run import ToyGenerator

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.evals.sampled import image_name, write_image, write_prompt
from maskrl.evaluations.cleanliness import MEASURES, Cleanliness
from maskrl.evaluations.numbers import numbers
from maskrl.shapes.cleanliness import look
from maskrl.shapes.faults import misread, random_caption
from maskrl.shapes.world import COLORS, IMAGE_SIZE, RADIUS, Thing, paint
from maskrl.testing import check_evaluation
from maskrl.types import Prompt

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from cleanliness import RESULT, levels, scenes, through_tokenizer  # noqa: E402
from planted_faults import FAULTS  # noqa: E402

EVALUATION = Cleanliness(ComponentConfig())
CIRCLE = Thing("circle", "red", 16.0, 16.0, RADIUS)
SQUARE = Thing("square", "blue", 40.0, 32.0, RADIUS)
RED_CIRCLE = Prompt(
    "a photo of a red circle",
    {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}]},
)
TWO_CIRCLES = Prompt(
    "a photo of two circles",
    {
        "tag": "counting",
        "include": [{"class": "circle", "count": 2}],
        "exclude": [{"class": "circle", "count": 3}],
    },
)


def image(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def verdict(prompt, *scene):
    (row,) = EVALUATION.judge([image(paint(scene))], [prompt])
    return row["clean"], row["strict"], row["geneval"]


def test_what_the_world_paints_is_clean_and_seen_as_it_is():
    for scene in scenes(20, seed=5):
        seen = look(paint(scene))
        assert seen.fault == ""
        assert set(seen.things) == set(scene)


@pytest.fixture(scope="module")
def decoded():
    """Scenes, and what the tokenizer makes of their pictures."""
    drawn = scenes(24, seed=6)
    return drawn, through_tokenizer(np.stack([paint(scene) for scene in drawn]))


def test_what_the_tokenizer_makes_of_it_is_clean(decoded):
    assert sum(look(picture).fault == "" for picture in decoded[1]) >= 23


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_refused_as_painted_and_after_the_tokenizer(name, decoded):
    rng = np.random.default_rng(0)
    for scene, after in list(zip(*decoded, strict=True))[:4]:
        faulty = FAULTS[name](scene, rng)
        assert look(levels(faulty)).fault
        assert look(levels(after + (faulty - paint(scene)))).fault


def test_a_fault_is_told_with_its_place():
    picture = paint([CIRCLE]).copy()
    picture[40:42, 30:32] = 0
    assert look(picture).fault == "something else at (30, 40): 113 levels from white, and 14 are allowed"
    picture = paint([CIRCLE]).copy()
    picture[16:20, 16:20] = COLORS["orange"]
    assert look(picture).fault == "the red circle at (16, 16) is 110 levels off, and 32 are allowed"
    assert look(paint([])).fault == "no shape of the world is unmistakable"


@pytest.mark.parametrize(
    ("prompt", "scene", "expected"),
    [
        (RED_CIRCLE, [CIRCLE], (True, True, True)),
        (RED_CIRCLE, [CIRCLE, SQUARE], (True, False, True)),
        (RED_CIRCLE, [CIRCLE, replace(CIRCLE, x=40.0)], (True, False, True)),
        (RED_CIRCLE, [replace(CIRCLE, color="blue")], (True, False, False)),
        (RED_CIRCLE, [SQUARE], (True, False, False)),
        (RED_CIRCLE, [replace(CIRCLE, x=19.0)], (False, True, True)),  # beside the grid, where no token is
        (RED_CIRCLE, [CIRCLE, replace(SQUARE, x=60.0)], (True, True, True)),  # outside of the picture
        (TWO_CIRCLES, [CIRCLE, replace(CIRCLE, y=40.0)], (True, True, True)),
        (TWO_CIRCLES, [CIRCLE, replace(CIRCLE, y=40.0), SQUARE], (True, False, True)),
        (TWO_CIRCLES, [CIRCLE], (True, False, False)),
    ],
)
def test_clean_strict_and_the_official_rule(prompt, scene, expected):
    assert verdict(prompt, *scene) == expected


def test_what_is_like_no_shape_is_one_object_too_many():
    picture = paint([CIRCLE]).copy()
    picture[30:46, 30:34] = (215, 30, 40)
    (row,) = EVALUATION.judge([image(picture)], [RED_CIRCLE])
    assert (row["clean"], row["strict"], row["geneval"]) == (False, False, True)


@pytest.mark.parametrize("seed", range(12))
def test_strict_wants_no_less_than_the_official_rule(seed):
    rng = np.random.default_rng(seed)
    caption = random_caption(rng)
    scene = misread(caption, rng).scene(rng, list(COLORS))
    clean, strict, official = verdict(Prompt(caption.text(""), caption.metadata()), *scene)
    assert clean
    assert official == replace(caption, place=None).holds(scene)
    assert strict <= official


def test_numbers_are_of_every_task_and_their_plain_mean():
    def row(prompt, tag, clean, strict, official):
        told = {"clean": clean, "strict": strict, "geneval": official}
        return {"filename": f"{prompt}/0.png", "tag": tag, **told}

    rows = [
        row("a", "colors", True, True, True),
        row("b", "colors", True, False, True),
        row("c", "counting", True, False, False),
        row("d", "counting", False, True, True),
        row("e", "counting", True, False, True),
        row("f", "counting", False, False, False),
    ]
    found = numbers(EVALUATION, rows)
    assert list(found)[: len(MEASURES)] == list(MEASURES)
    assert [found[name].mean for name in MEASURES] == [0.75, 0.375, 0.25, 0.75]
    assert [found[f"{m}_counting"].mean for m in MEASURES] == [0.5, 0.25, 0.0, 0.5]
    errors = [found[f"strict_{task}"].se for task in ("colors", "counting")]
    assert errors == pytest.approx([0.5, 0.25])
    assert found["strict"].se == pytest.approx(math.hypot(*errors) / 2)
    headings, overall, *tasks = EVALUATION.table(rows)
    assert headings[1:] == ("clean", "strict", "clean and strict", "GenEval-shapes")
    assert overall[:2] == ("overall", f"0.750 ± {found['clean'].se:.3f}")
    assert [line[0] for line in tasks] == ["counting", "colors"]


def test_it_keeps_to_the_contract_of_evaluations():
    check_evaluation(EVALUATION, image_size=(IMAGE_SIZE, IMAGE_SIZE))
    assert len(Cleanliness.prompts()) == 240


def test_a_prompt_of_another_world_is_refused():
    dogs = Prompt("two dogs", {"tag": "counting", "include": [{"class": "dog", "count": 2}]})
    with pytest.raises(RecipeError, match="asks for the class 'dog'"):
        EVALUATION.check([dogs])


def write_folder(folder, images):
    for index, (prompt, some) in enumerate(zip((RED_CIRCLE, TWO_CIRCLES), images, strict=True)):
        write_prompt(folder, index, prompt)
        for number, picture in enumerate(some):
            path = folder / image_name(index, number)
            path.parent.mkdir(exist_ok=True)
            write_image(path, image(picture))


def test_a_folder_is_judged_and_two_are_compared(cli, tmp_path):
    right, more = paint([CIRCLE]), paint([CIRCLE, SQUARE])
    two = paint([CIRCLE, replace(CIRCLE, y=40.0)])
    write_folder(tmp_path / "before", [[right, more], [more, more]])
    write_folder(tmp_path / "after", [[right, right], [two, more]])
    for name in ("before", "after"):
        done = cli("eval", "cleanliness", "--images", tmp_path / name, "--out", tmp_path / f"of_{name}")
        assert done.code == 0, done.err
    assert "clean and strict" in done.out
    saved = json.loads((tmp_path / "of_after/cleanliness/summary.json").read_text())
    assert saved["numbers"]["strict"]["mean"] == 0.75
    compared = cli("eval", "compare", tmp_path / "of_before/cleanliness", tmp_path / "of_after/cleanliness")
    assert compared.code == 0, compared.err
    line = next(line for line in compared.out.splitlines() if " strict " in line)
    assert "0.250" in line
    assert "+0.500" in line


def test_pictures_of_another_size_are_refused_in_a_line(cli, tmp_path):
    write_folder(tmp_path / "large", [[np.full((64, 80, 3), 255, np.uint8)]] * 2)
    done = cli("eval", "cleanliness", "--images", tmp_path / "large", "--out", tmp_path / "out")
    assert done.code == 2
    said = " ".join(done.err.split())
    assert "48 x 48 pixels; one of 'a photo of a red circle' has 80 x 64: leave this evaluation out" in said


class FourEights(ToyGenerator):
    """Paints pictures of the world's size."""

    spec = replace(ToyGenerator.spec, image_size=(IMAGE_SIZE, IMAGE_SIZE))

    def decode(self, tokens, condition):
        tiles = super().decode(tokens, condition)
        return torch.nn.functional.interpolate(tiles, size=(IMAGE_SIZE, IMAGE_SIZE))


def test_a_run_makes_it_before_and_after_training(cli, toy_recipe, tmp_path):
    text = toy_recipe.read_text()
    toy = f"{Path(__file__).with_name('toy_run.py')}:ToyGenerator"
    asked = [{**prompt.metadata, "text": prompt.text} for prompt in (RED_CIRCLE, TWO_CIRCLES)]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    section = '[eval.cleanliness]\nprompts = "asked.jsonl"\nimages_per_prompt = 1\n'
    toy_recipe.write_text(text.replace(toy, f"{__file__}:FourEights") + section)
    run = tmp_path / "run"
    done = cli("train", "--recipe", toy_recipe, "--run", run, "--set", "training.updates=1", "--quiet")
    assert done.code == 0, done.err
    for when in ("before", "after"):
        saved = json.loads((run / f"eval/cleanliness/{when}/summary.json").read_text())
        assert (saved["images"], saved["numbers"]["clean"]["mean"]) == (2, 0)
    measured = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["cleanliness"] for row in measured if "cleanliness" in row] == [0, 0]


def test_the_page_has_the_numbers_of_the_results_file():
    page = (BENCHMARKS.parent / "docs" / "evaluation.md").read_text()
    found = json.loads(RESULT.read_text())
    for name, row in found["refused"].items():
        assert row == {"painted": 1.0, "decoded": 1.0}, name
    assert f"{found['clean']['painted']:.3f} | {found['clean']['decoded']:.3f}" in page
    for guidance, row in found["base"].items():
        cells = " | ".join(f"{row[measure][0]:.3f} ± {row[measure][1]:.3f}" for measure in MEASURES)
        assert f"| base, {guidance} | {cells} |" in page
