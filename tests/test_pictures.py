"""Pictures that a person judges a run by."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_run import ToyGenerator, geneval_prompts

from maskrl.grpo.config import SamplingConfig, resolve
from maskrl.training.pictures import SampleSheets, choose_prompts, save_before_after, tallies
from maskrl.training.sheet import FRAME, LINE, PAPER, RIGHT, WRONG, save_sheet
from maskrl.types import Prompt, Stream

TEXTS = ("one", "a text of very many words that has to be broken into lines to fit")


def sampler(batch=3, is_right=lambda image, prompt: None):
    generator = ToyGenerator(ToyGenerator.Config())
    sampling = resolve(SamplingConfig(), generator.spec)
    return SampleSheets([Prompt(text) for text in TEXTS], Stream(1), 3, sampling, batch, is_right), generator


def pixels(path):
    with Image.open(path) as sheet:
        return np.array(sheet.convert("RGB"))


def colours(path):
    return {tuple(colour) for colour in np.unique(pixels(path).reshape(-1, 3), axis=0).tolist()}


def frames(path, colour):
    """Count the frames of a colour: each has one top left corner, with the colour to its right and below alone."""
    is_line = (pixels(path) == colour).all(axis=-1)
    padded = np.pad(is_line, 1)[:-1, :-1]
    corner = is_line & ~padded[:-1, 1:] & ~padded[1:, :-1]
    run = FRAME + 40
    return sum(
        is_line[y : y + run, x].all() and is_line[y, x : x + run].all() for y, x in np.argwhere(corner)
    )


def test_samples_do_not_depend_on_the_batch():
    (small, generator), (large, _) = sampler(batch=3), sampler(batch=8)
    images = small.paint(generator).images
    assert images.shape == (2, 4, 3, 8, 12)
    assert torch.equal(images, large.paint(generator).images)


def test_before_and_after_show_pairs_from_one_noise(tmp_path):
    paint, generator = sampler()
    before = paint.paint(generator)
    path = tmp_path / "a" / "b.png"
    save_before_after(path, before, before)
    shown = colours(path)
    for image in before.images.flatten(0, 1):
        assert tuple((image[:, 0, 0] * 255).round().int().tolist()) in shown
    assert frames(path, LINE) == 2 * 4 * 2  # prompts x images x (before, after)


def test_before_and_after_say_of_each_prompt_how_many_are_right():
    paint, generator = sampler(is_right=lambda image, prompt: prompt.text == "one" or None)
    before = paint.paint(generator)
    after = replace(before, marks=[[True, False, True, False], [True, True, True, None]])
    assert tallies(before, after) == ["one: 4 of 4 right, then 2", TEXTS[1]]


def test_white_images_on_white_paper_can_be_counted(tmp_path):
    rows = torch.ones(7, 3, 8, 8).split(4)
    save_sheet(tmp_path / "sheet.png", [""] * 4, rows)
    assert frames(tmp_path / "sheet.png", LINE) == 7


def test_marks_say_right_and_wrong_and_nothing_of_what_nobody_knows(tmp_path):
    rows = [torch.full((3, 3, 8, 8), 0.5)]
    save_sheet(tmp_path / "sheet.png", ["a", "b", "c"], rows, (), [[True, False, None]])
    assert [frames(tmp_path / "sheet.png", colour) for colour in (RIGHT, WRONG, LINE)] == [1, 1, 1]
    save_sheet(tmp_path / "plain.png", ["a", "b", "c"], rows)
    assert not colours(tmp_path / "plain.png") & {RIGHT, WRONG}


def test_every_sample_is_judged(tmp_path):
    paint, generator = sampler(is_right=lambda image, prompt: prompt.text == "one")
    assert paint.paint(generator).marks == [[True] * 4, [False] * 4]


def test_a_caption_of_a_thousand_words_leaves_the_picture_its_size(tmp_path):
    paint, generator = sampler()
    long = SampleSheets([Prompt("word " * 1000)], *[getattr(paint, f) for f in ("stream", "num_steps", "sampling")],
                   3, paint.is_right)  # fmt: skip
    save_before_after(tmp_path / "sheet.png", long.paint(generator), long.paint(generator))
    assert pixels(tmp_path / "sheet.png").shape[0] < 1500
    assert pixels(tmp_path / "sheet.png")[0, 0].tolist() == list(PAPER)


def evaluated():
    records = [json.loads(line) for line in geneval_prompts().splitlines()]
    return [Prompt(record.pop("text"), record) for record in records]


def test_pictures_show_a_prompt_of_each_task_of_the_evaluation():
    chosen = choose_prompts(None, evaluated(), [Prompt("trained")])
    tasks = ["single_object", "two_object", "counting", "colors", "position", "color_attr"]
    assert [prompt.metadata["tag"] for prompt in chosen] == tasks
    assert all(prompt.text.endswith(" 0 1") for prompt in chosen)


def test_without_an_evaluation_they_show_what_is_trained_on():
    trained = [Prompt(f"prompt {i % 50}") for i in range(100)]
    chosen = [prompt.text for prompt in choose_prompts(None, (), trained)]
    assert chosen == [f"prompt {i}" for i in (0, 8, 16, 24, 32, 40)]
    assert choose_prompts(None, (), trained[:2]) == trained[:2]


@pytest.mark.parametrize("named", [(), ("blue", "counting 0 1")])
def test_what_the_recipe_names_is_shown_and_judged_where_it_is_known(named):
    chosen = choose_prompts(named, evaluated(), [Prompt("trained")])
    assert [prompt.text for prompt in chosen] == list(named)
    assert [prompt.metadata.get("tag") for prompt in chosen] == [None, "counting"][: len(named)]


def test_prompts_of_one_task_are_shown_from_all_over_their_list():
    same = [Prompt(f"prompt {i}") for i in range(12)]
    assert [prompt.text for prompt in choose_prompts(None, same, [])] == [
        f"prompt {i}" for i in range(0, 12, 2)
    ]
