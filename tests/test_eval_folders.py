"""Evaluations of images in a folder: painted once, resumed after a kill, refused when they do not do."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import built
import numpy as np
import pytest
import torch
from PIL import Image
from test_evals import PROMPTS, SAMPLING, STREAM, Mosaic, Tiles, run

import maskrl
from maskrl.component import Chosen, ComponentConfig
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.comparison import compare, compare_files
from maskrl.evals.folder import evaluate_folder
from maskrl.evals.images import open_folder
from maskrl.evals.results import read_report, read_result, read_rows
from maskrl.evals.sampled import _claim, sample_folder
from maskrl.evaluations.geneval import GenEvalBenchmark
from maskrl.grpo.processes import SingleProcess
from maskrl.identity import identity
from maskrl.interfaces import RewardModel

ALONE = SingleProcess()
CLIP = Path(maskrl.__file__).parent / "shapes" / "weights" / "clip"


def rows_in(out):
    return read_rows(out, read_result(out))


def paint(folder, generator=None, **changes):
    settings = {"sampling": SAMPLING, "num_steps": 2, "images_per_prompt": 4, "stream": STREAM, "batch": 10}
    calls = []
    sample_folder(
        folder,
        generator or Mosaic(Mosaic.Config()),
        PROMPTS,
        process=ALONE,
        progress=lambda done, total: calls.append((done, total)),
        **(settings | changes),
    )
    return calls


def judge(folder, out, detector=None):
    return evaluate_folder(
        built.geneval(detector or Tiles(Tiles.Config())),
        open_folder(folder),
        out,
        {"checkpoint": "base"},
        batch=5,
        process=ALONE,
        progress=lambda done, total: None,
    )


class Killed(KeyboardInterrupt):
    pass


def mortal():
    """Make a painter that dies in its third decoding."""
    generator, decoded = Mosaic(Mosaic.Config()), []
    whole = generator.decode

    def decode(tokens, condition):
        decoded.append(1)
        if len(decoded) == 3:
            raise Killed
        return whole(tokens, condition)

    generator.decode = decode
    return generator


@pytest.fixture
def folder(tmp_path):
    paint(tmp_path / "images")
    return tmp_path / "images"


def pixels(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


# painting


def test_a_killed_painter_is_gone_on_with_and_paints_nothing_twice(folder, tmp_path):
    with pytest.raises(Killed):
        paint(tmp_path / "cut", mortal())
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").rglob("*.png")}
    assert len(first) == 20
    calls = paint(tmp_path / "cut")
    assert calls[0] == (30, 72)
    assert calls[-1] == (72, 72)
    assert all(p.stat().st_mtime_ns == time for p, time in first.items())
    assert pixels(tmp_path / "cut") == pixels(folder)
    assert paint(tmp_path / "cut") == []


@pytest.mark.parametrize(
    ("change", "named"), [({"num_steps": 3}, "num_steps"), ({"images_per_prompt": 2}, "images_per_prompt")]
)
def test_images_of_other_settings_are_not_mixed(folder, change, named):
    before = pixels(folder)
    with pytest.raises(RecipeError, match=f"differ in {named}"):
        paint(folder, **change)
    assert pixels(folder) == before


def test_a_folder_of_something_else_is_not_painted_into(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds something else"):
        paint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


# judging


def test_a_folder_gives_the_same_verdicts_as_painting_and_judging_at_once(folder, tmp_path):
    from_folder, at_once = judge(folder, tmp_path / "out"), run()
    assert from_folder.rows == at_once.rows
    assert from_folder.numbers == at_once.numbers
    assert from_folder.result.settings == at_once.result.settings
    assert from_folder.result.provenance["generator"] == at_once.result.provenance["generator"]


class Mortals(Tiles):
    """Die at the 31st image."""

    seen = 0

    def detect(self, image):
        self.seen += 1
        if self.seen == 31:
            raise Killed
        return super().detect(image)


def test_a_killed_judge_is_gone_on_with_and_judges_nothing_twice(folder, tmp_path):
    with pytest.raises(Killed):
        judge(folder, tmp_path / "out", Mortals(Tiles.Config()))
    journal = tmp_path / "out" / "unfinished" / "0.jsonl"
    assert len(journal.read_text().splitlines()) == 30
    journal.write_text(journal.read_text()[:-20])  # the kill cut a row short
    again = Mortals(Tiles.Config())
    again.seen = 100
    report = judge(folder, tmp_path / "out", again)
    assert again.seen == 100 + 72 - 29
    assert report.rows == run().rows


def test_verdicts_of_another_judge_are_not_gone_on_with(folder, tmp_path):
    with pytest.raises(Killed):
        judge(folder, tmp_path / "out", Mortals(Tiles.Config()))
    left = (tmp_path / "out" / "unfinished" / "0.jsonl").read_bytes()
    counting = type("Others", (Mortals,), {})(Tiles.Config())
    counting.seen = 100
    with pytest.raises(
        RecipeError, match=r"left unfinished: they differ in detector; finish that one, .* delete"
    ):
        judge(folder, tmp_path / "out", counting)
    assert (tmp_path / "out" / "unfinished" / "0.jsonl").read_bytes() == left
    shutil.rmtree(tmp_path / "out" / "unfinished")  # as the message says
    judge(folder, tmp_path / "out", counting)
    assert counting.seen == 172


def test_a_byte_that_changed_in_a_row_has_it_judged_again(folder, tmp_path):
    with pytest.raises(Killed):
        judge(folder, tmp_path / "out", Mortals(Tiles.Config()))
    journal = tmp_path / "out" / "unfinished" / "0.jsonl"
    text = journal.read_text()
    journal.write_text("garbage\n" + text.replace('"correct": true', '"correct": null', 1))
    assert journal.read_text() != "garbage\n" + text
    again = Mortals(Tiles.Config())
    again.seen = 100
    report = judge(folder, tmp_path / "out", again)
    assert again.seen == 100 + 72 - 29
    assert report.rows == run().rows


def test_an_image_that_was_mended_is_judged_again_and_it_alone(folder, tmp_path):
    with pytest.raises(Killed):
        judge(folder, tmp_path / "out", Mortals(Tiles.Config()))
    first = folder / "00000" / "samples" / "00000.png"
    other = (folder / "00003" / "samples" / "00001.png").read_bytes()
    first.write_bytes(other)
    for image in folder.rglob("*.png"):
        os.utime(image)  # when they were written does not matter
    moved = tmp_path / "moved"
    shutil.move(folder, moved)  # nor where they lie
    again = Mortals(Tiles.Config())
    again.seen = 100
    judge(moved, tmp_path / "out", again)
    assert again.seen == 100 + 72 - 30 + 1


def test_an_image_that_a_full_disk_cut_short_is_painted_again_by_the_same_command(folder):
    before = pixels(folder)
    images = sorted(folder.rglob("*.png"))
    images[0].write_bytes(b"")
    images[5].write_bytes(images[5].read_bytes()[:-3])
    (folder / "settings.json.0123abcd.tmp").write_text("left by a kill")
    assert paint(folder) == [(72, 72)]
    assert pixels(folder) == before
    assert not (folder / "settings.json.0123abcd.tmp").exists()


def test_images_of_weights_that_changed_under_their_path_are_not_gone_on_with(tmp_path):
    shutil.copytree(CLIP, tmp_path / "weights")
    weights = tmp_path / "weights" / "open_clip_model.safetensors"

    def settings():
        chosen = Chosen(
            "rewards", {"name": "clip", "model": str(tmp_path / "weights"), "pretrained": None}, Path()
        )
        return {"generator": identity(chosen), "prompts_sha256": "", "images_per_prompt": 1}

    _claim(tmp_path / "images", settings())
    _claim(tmp_path / "images", settings())
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(
        RecipeError, match=r"differ in generator; choose another --out, or judge them with --images"
    ):
        _claim(tmp_path / "images", settings())


def test_images_of_weights_that_nobody_hashed_are_not_gone_on_with(tmp_path):
    old = {"generator": {"class": "x:Y", "checkpoint": "/gone"}, "prompts_sha256": "", "images_per_prompt": 1}
    _claim(tmp_path / "images", old)
    new = {**old, "generator": {"class": "x:Y", "checkpoint": {"sha256": "ab"}}}
    with pytest.raises(
        RecipeError, match=r"nobody can say whether these would paint them \(generator\); choose"
    ):
        _claim(tmp_path / "images", new)


@pytest.mark.parametrize(
    "text", ['{"theme": "dark"}', '["generator"]', '{"generator": "x", "prompts_sha256": 1}']
)
def test_the_settings_of_another_tool_say_nothing_of_the_images(folder, tmp_path, text):
    (folder / "settings.json").write_text(text)
    assert judge(folder, tmp_path / "out").rows == run().rows
    with pytest.raises(RecipeError, match="holds something else than images of this evaluation"):
        paint(folder)


def test_images_of_another_tool_are_judged_and_say_so(folder, tmp_path):
    (folder / "settings.json").unlink()
    report = judge(folder, tmp_path / "out")
    assert report.result.provenance["generator"] is None
    assert report.rows == run().rows
    assert "num_steps" not in report.result.settings
    with pytest.raises(RecipeError, match="num_steps"):
        compare(GenEvalBenchmark, report, run())


def test_results_of_other_settings_are_not_overwritten(folder, tmp_path):
    judge(folder, tmp_path / "out")
    judge(folder, tmp_path / "out")  # the same again is welcome
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    del saved["provenance"]["judged"]  # whatever the images are
    (tmp_path / "out" / "summary.json").write_text(json.dumps(saved))
    paint(tmp_path / "more", num_steps=3)
    with pytest.raises(RecipeError, match="results of other settings: they differ in num_steps"):
        judge(tmp_path / "more", tmp_path / "out")


def test_verdicts_on_other_images_are_not_gone_on_with(folder, tmp_path):
    with pytest.raises(Killed):
        judge(folder, tmp_path / "out", Mortals(Tiles.Config()))
    paint(tmp_path / "other", Mosaic(Mosaic.Config(), seed=1))  # same prompts, same settings, same names
    again = Mortals(Tiles.Config())
    again.seen = 100
    report = judge(tmp_path / "other", tmp_path / "out", again)
    assert again.seen >= 165  # but for those that happen to hold the same
    assert report.rows != run().rows


def test_results_of_other_images_are_not_overwritten(folder, tmp_path):
    score(folder, tmp_path / "out")
    before = (tmp_path / "out" / "summary.json").read_text()
    paint(tmp_path / "other", Mosaic(Mosaic.Config(), seed=1))
    with pytest.raises(RecipeError, match=r"results of other images, .* \(in '.*/images'\); choose"):
        score(tmp_path / "other", tmp_path / "out")
    assert (tmp_path / "out" / "summary.json").read_text() == before
    score(folder, tmp_path / "out")  # the same again is welcome


# what is wrong with a folder


def resave(path, mode):
    Image.open(path).convert(mode).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no image folder"),
        (
            lambda f: [shutil.rmtree(p) for p in f.iterdir() if p.is_dir()],
            "holds no images in GenEval's layout",
        ),
        (lambda f: (f / "00003/metadata.jsonl").unlink(), "00003/metadata.jsonl' is missing"),
        (lambda f: (f / "00003/metadata.jsonl").write_text("[1]"), "no metadata of GenEval's"),
        (lambda f: (f / "00003/metadata.jsonl").write_text('{"tag": "colors"}'), "no metadata of GenEval's"),
        (lambda f: (f / "00003/samples/00001.png").unlink(), "00003' has 3 images and '00000' has 4"),
        (lambda f: shutil.rmtree(f / "00003/samples"), "00003' has 0 images and '00000' has 4"),
        (lambda f: cut(f / "00003/samples/00001.png"), "00001.png' is no whole image"),
        (lambda f: (f / "00003/samples/00001.png").write_text("no image"), "00001.png' is no whole image"),
        (lambda f: resave(f / "00003/samples/00001.png", "RGBA"), "00001.png' is RGBA, neither RGB nor grey"),
        (lambda f: resave(f / "00003/samples/00001.png", "P"), "00001.png' is "),
        (lambda f: (f / "settings.json").write_text("{"), "settings.json' is damaged"),
        (
            lambda f: shutil.rmtree(f / "00003"),
            "17 prompts with 4 images, which is not what its settings.json",
        ),
        (lambda f: [p.unlink() for p in f.rglob("00003.png")], "18 prompts with 3 images, which is not"),
        (lambda f: [p.unlink() for p in f.rglob("*.png")], "holds prompts and no images"),
        (lambda f: (f / "00003/metadata.jsonl").write_text('{"prompt": 5}'), "no metadata of GenEval's"),
    ],
)
def test_a_folder_that_does_not_do_is_one_clear_line_and_no_result(folder, tmp_path, change, message):
    change(folder)
    with pytest.raises((RecipeError, TrainingError), match=message) as error:
        judge(folder, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_hole_among_the_prompts_of_another_tool_is_no_mean_of_what_is_left(folder, tmp_path):
    (folder / "settings.json").unlink()
    shutil.rmtree(folder / "00003")
    with pytest.raises(
        RecipeError, match="has prompts 2 and 4 and none in between: put back what is missing"
    ):
        judge(folder, tmp_path / "out")
    shutil.move(folder / "00017", folder / "00003")  # as the message says
    assert len(open_folder(folder).prompts) == 17


@pytest.mark.parametrize("name", ["00001.webp", "img-0.png"])
def test_a_picture_that_is_not_counted_is_named(folder, tmp_path, name):
    (folder / "settings.json").unlink()
    samples = folder / "00003/samples"
    shutil.move(samples / "00001.png", samples / name)
    with pytest.raises(RecipeError, match=f"'{name}' is not counted: images are NUMBER.png"):
        judge(folder, tmp_path / "out")


def test_a_byte_order_mark_before_the_metadata_is_none_of_them(folder, tmp_path):
    path = folder / "00003/metadata.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert judge(folder, tmp_path / "out").rows == run().rows


def test_prompts_that_are_not_genevals_are_named(folder, tmp_path):
    (folder / "settings.json").unlink()
    (folder / "00003/metadata.jsonl").write_text('{"prompt": "a cat", "tag": "cats", "include": []}')
    with pytest.raises(RecipeError, match="GenEval cannot judge the prompt 'a cat'"):
        judge(folder, tmp_path / "out")


def test_what_a_killed_painter_left_is_no_image(folder, tmp_path):
    (folder / "00003/samples/00001.png.tmp").write_bytes(b"half")
    assert open_folder(folder).per_prompt == 4


# rewards over a folder


class Brightness(RewardModel):
    Config = ComponentConfig
    calls = 0

    def score(self, images, prompts):
        self.calls += 1
        return images.mean(dim=(1, 2, 3)) + torch.tensor([float(len(prompt.text)) for prompt in prompts])


def score(folder, out, reward=None):
    measured = built.mean_reward(reward or Brightness(ComponentConfig()))
    return evaluate_folder(measured, open_folder(folder), out, {"checkpoint": "base"}, batch=7).result


def test_a_score_is_the_mean_over_images_with_an_error_over_prompts(folder, tmp_path):
    result = score(folder, tmp_path / "out")
    rows = rows_in(tmp_path / "out")
    assert [row["filename"] for row in rows] == [name for _, name in open_folder(folder).pairs()]
    array = np.asarray(Image.open(folder / rows[5]["filename"])) / 255
    assert rows[5]["score"] == pytest.approx(array.mean() + len(rows[5]["prompt"]), abs=1e-5)
    by_prompt = np.array([row["score"] for row in rows]).reshape(18, 4).mean(axis=1)
    assert result.numbers["mean"].mean == pytest.approx(by_prompt.mean())
    assert result.numbers["mean"].se == pytest.approx(by_prompt.std(ddof=1) / np.sqrt(18))
    assert replace(read_result(tmp_path / "out"), rows_sha256=None) == result
    assert not (tmp_path / "out" / "unfinished").exists()


def test_images_of_several_sizes_are_scored_with_their_like(folder, tmp_path):
    path = folder / "00003/samples/00001.png"
    whole = {row["filename"]: row["score"] for row in [*read_rows_of(folder, tmp_path / "before")]}
    Image.open(path).resize((24, 24), Image.Resampling.NEAREST).save(path)
    after = {row["filename"]: row["score"] for row in [*read_rows_of(folder, tmp_path / "after")]}
    assert after == pytest.approx(whole, abs=1e-6)


def read_rows_of(folder, out):
    score(folder, out)
    return rows_in(out)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_score_that_is_not_finite_is_no_result(folder, tmp_path, value):
    class Broken(Brightness):
        def score(self, images, prompts):
            return super().score(images, prompts) * value

    with pytest.raises(TrainingError, match=f"evaluation: the reward 'Broken' gave {value} for an image of"):
        score(folder, tmp_path / "out", Broken(ComponentConfig()))
    assert not (tmp_path / "out" / "summary.json").exists()


# comparing files


def test_two_results_are_compared_prompt_by_prompt(folder, tmp_path):
    paint(tmp_path / "other", Mosaic(Mosaic.Config(), seed=1))
    for name, images in (("a", folder), ("b", tmp_path / "other")):
        judge(images, tmp_path / name)
    compared = compare_files(tmp_path / "a", tmp_path / "b")
    before, after, lines = compared.first, compared.second, compared.lines
    by_name = {line.name: line for line in lines}
    reports = [read_report(tmp_path / name) for name in ("a", "b")]
    assert by_name["overall"].difference.mean == pytest.approx(
        reports[1].headline.mean - reports[0].headline.mean
    )
    right = [
        np.array([row["correct"] for row in report.rows if row["tag"] == "counting"]) for report in reports
    ]
    gains = (right[1].astype(float) - right[0]).reshape(3, 4).mean(axis=1)
    assert by_name["counting"].difference.se == pytest.approx(gains.std(ddof=1) / np.sqrt(3))
    assert (before.evaluation, after.images) == ("geneval", 72)
    assert [line.name for line in lines][:2] == ["overall", "single_object"]


def test_scores_are_compared_and_uncertainty_is_that_of_the_differences(folder, tmp_path):
    paint(tmp_path / "other", Mosaic(Mosaic.Config(), seed=1))
    score(folder, tmp_path / "a")
    score(tmp_path / "other", tmp_path / "b")
    (line,) = compare_files(tmp_path / "a", tmp_path / "b").lines
    rows = [np.array([r["score"] for r in rows_in(tmp_path / n)]).reshape(18, 4).mean(axis=1) for n in "ab"]
    gains = rows[1] - rows[0]
    assert line.difference.mean == pytest.approx(gains.mean())
    assert line.difference.se == pytest.approx(gains.std(ddof=1) / np.sqrt(18))
    assert line.difference.se < 0.5 * line.first.se  # prompts differ more than generators


def test_what_was_not_measured_alike_is_not_compared(folder, tmp_path, cli):
    judge(folder, tmp_path / "a")
    score(folder, tmp_path / "b")
    with pytest.raises(RecipeError, match="different evaluations"):
        compare_files(tmp_path / "a", tmp_path / "b")
    paint(tmp_path / "more", num_steps=3)
    judge(tmp_path / "more", tmp_path / "c")
    with pytest.raises(RecipeError, match="differ in num_steps"):
        compare_files(tmp_path / "a", tmp_path / "c")
    refused = cli("eval", "compare", tmp_path / "a", tmp_path / "c")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there are no results"),
        ("{", "damaged"),
        ('{"numbers": {}}', "no evaluation's"),
        ("[]", "no evaluation's"),
    ],
)
def test_results_that_are_none_are_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    with pytest.raises((RecipeError, TrainingError), match=message):
        read_result(tmp_path)


def test_the_command_shows_the_papers_rows_beside_genevals(folder, tmp_path, cli, monkeypatch):
    monkeypatch.setattr("maskrl.evaluations.geneval.OFFICIAL_IMAGES", 72)
    for name in "ab":
        judge(folder, tmp_path / name)
        saved = json.loads((tmp_path / name / "summary.json").read_text())
        (tmp_path / name / "summary.json").write_text(json.dumps({**saved, "label": "GenEval"}))
    shown = cli("eval", "compare", tmp_path / "a", tmp_path / "b")
    assert shown.code == 0, shown.err
    for part in ("0.53", "0.73", "+0.000", "overall"):
        assert part in shown.out


# what other tools leave


def renamed(folder, tmp_path, name):
    """A copy of a folder in which prompt i lies in ``name(i)``."""
    for i, place in enumerate(sorted(folder.glob("0*"))):
        shutil.copytree(place, tmp_path / "other" / name(i))
    return tmp_path / "other"


@pytest.mark.parametrize("name", ["{}", "{:04d}", "{:05d}", "{:012d}"])
def test_folders_of_any_digits_are_in_the_order_of_their_numbers(folder, tmp_path, name):
    found = open_folder(renamed(folder, tmp_path, name.format))
    assert [prompt.text for prompt in found.prompts] == [
        prompt.text for prompt in open_folder(folder).prompts
    ]


def test_images_are_in_the_order_of_their_numbers(folder):
    (folder / "settings.json").unlink()
    for place in folder.glob("0*"):
        for i in range(4, 12):
            shutil.copy(place / "samples/00000.png", place / "samples" / f"{i}.png")
    names = open_folder(folder).names[0]
    assert [int(Path(name).stem) for name in names] == list(range(12))


@pytest.mark.parametrize(
    "name", [".DS_Store", "._00000.png", "Thumbs.db", "grid.png", "00000.png.0123abcd.unfinished"]
)
def test_what_is_called_otherwise_is_not_looked_at(folder, tmp_path, name):
    for place in folder.glob("0*"):
        (place / "samples" / name).write_bytes(b"")
    (folder / name).write_bytes(b"")
    assert judge(folder, tmp_path / "out").rows == run().rows


@pytest.mark.parametrize("ending", [".PNG", ".jpg", ".JPEG"])
def test_other_endings_are_read(folder, ending):
    for path in folder.rglob("*.png"):
        Image.open(path).save(path.with_suffix(ending), format="PNG" if ending == ".PNG" else "JPEG")
        path.unlink()
    found = open_folder(folder)
    assert found.per_prompt == 4
    assert found.read(found.names[0][0]).shape == (3, 12, 12)


def test_a_photograph_is_turned_as_it_is_to_be_shown(folder):
    path = folder / "00000/samples/00000.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (12, 8)).save(path, exif=exif)
    assert open_folder(folder).read("00000/samples/00000.png").shape == (3, 12, 8)
