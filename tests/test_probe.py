"""Relative correctness over folders: a reward that counts holds, one that only reads is found out."""

import json
import shutil
from pathlib import Path

import built
import pytest
import spots

from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.folder import evaluate_folder
from maskrl.evals.images import open_folder
from maskrl.evals.results import read_result, read_rows
from maskrl.evals.sampled import image_name, write_image, write_prompt
from maskrl.evaluations.relative_correctness import RelativeCorrectness
from maskrl.types import Prompt

SPOTS = Path(__file__).with_name("spots.py")
NUMBERS = ("zero", "one", "two", "three", "four")


def rows_in(out):
    return read_rows(out, read_result(out))


def asking(name, number, tag="counting", **more):
    text = f"a photo of {NUMBERS[number]} {name if number == 1 else name + 's'}"
    include = [{"class": name, "count": number, **more}]
    return Prompt(text, {"tag": tag, "include": include, "exclude": [{"class": name, "count": number + 1}]})


PROMPTS = [asking(name, number) for name in spots.CLASSES for number in (2, 4)]


def paint(folder, prompts=PROMPTS, wrong=1):
    """Four images of each prompt, the last ``wrong`` of them with an object too many."""
    for p, prompt in enumerate(prompts):
        clause = prompt.metadata["include"][0]
        write_prompt(folder, p, prompt)
        for i in range(4):
            image = spots.picture(clause["class"], clause["count"] + (i >= 4 - wrong))
            write_image(folder / image_name(p, i), image)
    return folder


def ask(folder, out, reward, batch=5):
    asked = built.relative_correctness(spots.Spots(spots.Spots.Config()), reward)
    found = evaluate_folder(asked, open_folder(folder), out, {"checkpoint": "base"}, batch=batch)
    return asked._report(found.rows), found.result


def make(reward):
    return reward(reward.Config())


@pytest.fixture
def folder(tmp_path):
    return paint(tmp_path / "images")


def test_a_reward_that_counts_holds(folder, tmp_path):
    report, result = ask(folder, tmp_path / "out", make(spots.Counting))
    two, four = report.numbers["2"], report.numbers["4"]
    assert (two.half.value, two.same.value, two.double.value) == (-1, 0, -2)
    assert (four.over_half.mean, four.over_double.mean) == (2, 4)
    assert (report.pooled.over_half.mean, report.pooled.over_double.mean) == (1.5, 3)
    assert (report.pooled.top, report.pooled.images, report.pooled.prompts) == (1, 18, 6)
    assert report.control.over_half.mean == report.control.top == 0
    assert report.beyond_text.over_double == report.pooled.over_double
    assert (report.ranking.auc, report.ranking.pairs, report.ranking.groups) == (1, 18, 6)
    assert report.holds
    assert next(iter(result.numbers)) == "over_half"
    assert result.numbers["over_half"].mean == 1.5
    assert result.numbers["top"].mean == result.numbers["auc"].mean == 1
    assert (result.images, result.settings["reward"]["class"]) == (24, "spots:Counting")


def test_a_reward_that_only_reads_is_found_out_by_the_control(folder, tmp_path):
    report, _ = ask(folder, tmp_path / "out", make(spots.Reading))
    assert report.pooled.over_half.mean > 0
    assert report.control == report.pooled
    beyond = report.beyond_text.over_half
    assert (beyond.mean, beyond.low, beyond.high, report.beyond_text.top) == (0, 0, 0, 0)
    assert report.ranking.auc == 0.5
    assert not report.holds


def test_the_files_hold_the_numbers_and_the_intervals(folder, tmp_path):
    report, result = ask(folder, tmp_path / "out", make(spots.Counting))
    out = tmp_path / "out"
    written = read_result(out)
    assert written.numbers["over_half"] == result.numbers["over_half"]
    details = json.loads((out / "relative_correctness.json").read_text())
    assert details["pooled"]["over_half"]["low"] == report.pooled.over_half.low
    assert details["holds"] is True
    rows = rows_in(out)
    assert [row["filename"] for row in rows] == [name for _, name in open_folder(folder).pairs()]
    assert [row["correct"] for row in rows[:4]] == [True, True, True, False]
    assert (rows[0]["score"], rows[0]["captions"], rows[0]["captions_on_control"]) == (
        0,
        [-1, 0, -2],
        [0] * 3,
    )
    assert (rows[3]["score"], rows[3]["captions"]) == (-1, None)
    assert rows[0]["companion"].partition("/")[0] not in ("00000", "00001")  # a dog's two prompts
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_batch_changes_nothing(folder, tmp_path, batch):
    first, _ = ask(folder, tmp_path / "a", make(spots.Counting))
    second, _ = ask(folder, tmp_path / "b", make(spots.Counting), batch)
    assert first == second


class Mortal(spots.Counting):
    calls = 0

    def score(self, images, prompts):
        self.calls += 1
        if self.calls == 10:
            raise KeyboardInterrupt
        return super().score(images, prompts)


def test_a_killed_probe_is_gone_on_with_and_scores_nothing_twice(folder, tmp_path):
    whole, _ = ask(folder, tmp_path / "whole", Mortal(Mortal.Config()), batch=100)
    reward = Mortal(Mortal.Config())
    with pytest.raises(KeyboardInterrupt):
        ask(folder, tmp_path / "out", reward, batch=5)
    done = (tmp_path / "out/unfinished/0.jsonl").read_text().splitlines()
    assert len(done) == 15
    calls = []
    reward.score = lambda images, prompts: calls.append(1) or spots.Counting.score(reward, images, prompts)
    report, _ = ask(folder, tmp_path / "out", reward, batch=100)
    assert report == whole
    seen = json.loads((tmp_path / "out/results.jsonl").read_text().splitlines()[0])
    entry = json.loads(done[0].partition("\t")[0])
    assert {"filename": entry["filename"], **entry["row"]} == seen
    assert len(calls) == 3  # of 9 images: their prompts, their captions, and these on the control


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        (asking("dog", 2), True),
        (asking("dog", 3), False),
        (asking("dog", 1), False),
        (asking("dog", 2, color="red"), False),
        (asking("dog", 2, tag="two_object"), False),
        (Prompt("a dog"), False),
    ],
)
def test_which_prompts_are_used(prompt, wanted):
    assert RelativeCorrectness.wants(prompt) == wanted


def test_a_malformed_counting_prompt_is_named():
    with pytest.raises(RecipeError, match=r"cannot judge the prompt 'dogs': include\.0\.count"):
        RelativeCorrectness.wants(
            Prompt("dogs", {"tag": "counting", "include": [{"class": "dog", "count": "many"}]})
        )


def test_no_right_image_and_one_class_are_refused_in_a_line(tmp_path):
    with pytest.raises(TrainingError, match="none of 24 images shows the number"):
        ask(paint(tmp_path / "wrong", wrong=4), tmp_path / "a", make(spots.Counting))
    with pytest.raises(RecipeError, match="all prompts ask for 'dog'"):
        ask(paint(tmp_path / "dogs", PROMPTS[:2]), tmp_path / "b", make(spots.Counting))
    assert not list(tmp_path.glob("*/summary.json"))


# on the command line


def run(cli, folder, *more):
    spoken = ("--detector", f"{SPOTS}:Spots", "--reward", f"name={SPOTS}:Counting")
    return cli("eval", "relative_correctness", "--images", folder, *spoken, *more)


def test_the_command_leaves_out_other_prompts_and_prints_the_table(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    others = [asking("dog", 3), asking("dog", 2, color="red")]
    shown = run(cli, paint(tmp_path / "images", [*PROMPTS, *others]))
    assert shown.code == 0, shown.err
    for part in (
        "24 images",
        "+1.500 [+1.",
        "N = 4",
        "other classes",
        "1.000 [1.000, 1.000]",
        "holds",
    ):
        assert part in shown.out, part
    assert read_result(tmp_path / "images/results/relative_correctness").images == 24


def test_the_command_paints_what_it_needs_and_no_more(cli, toy_recipe, tmp_path):
    lines = [asking("poppy", 2), asking("leaf", 2), asking("sky", 3), asking("sky", 4, tag="single_object")]
    texts = [json.dumps({"text": p.text, **p.metadata}) for p in lines]
    (tmp_path / "counting.jsonl").write_text("\n".join(texts))
    toy = Path(__file__).with_name("toy_run.py")
    asked = ("--recipe", toy_recipe, "--prompts", tmp_path / "counting.jsonl", "--detector", f"{toy}:Tiles")
    done = cli("eval", "relative_correctness", *asked, "--images-per-prompt", 40, "--out", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out/images").glob("0*")) == ["00000", "00001"]
    assert done.code == 0, done.err
    settings = read_result(tmp_path / "out/relative_correctness").settings
    assert settings["reward"]["class"] == "Red"  # the recipe's own


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda f: shutil.rmtree(f), 2, "there is no image folder"),
        (lambda f: [shutil.rmtree(f / f"{i:05d}") for i in range(6)], 2, "no prompt in"),
        (lambda f: (f / "00003/samples/00001.png").write_text("no image"), 4, "is no whole image"),
    ],
)
def test_a_folder_that_does_not_do_is_one_line(cli, tmp_path, change, code, message):
    folder = paint(tmp_path / "images", [*PROMPTS, asking("dog", 3)])
    change(folder)
    refused = run(cli, folder)
    assert (refused.code, refused.err.strip().count("\n")) == (code, 0), refused.err
    assert message in refused.err


def test_a_setting_that_is_none_is_one_line(cli, folder):
    refused = cli("eval", "relative_correctness", "--images", folder, "--reward", "=clip")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "write it as section.key=value" in refused.err
