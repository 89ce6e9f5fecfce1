"""Two results side by side: what is paired, what is not, and which rows of papers stand beside them."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import spots
from test_probe import PROMPTS, ask, make

from maskrl.errors import TrainingError
from maskrl.evals.comparison import compare_files
from maskrl.evals.images import open_folder
from maskrl.evals.results import RESULT, Number, Result, read_result, read_rows, write_result, write_rows
from maskrl.evals.sampled import image_name, write_image, write_prompt
from maskrl.evaluations.scores import ImageRewardScore, name_weights
from maskrl.geneval.metadata import TASKS
from maskrl.rewards.image_reward import ImageReward

CLIP = "package:maskrl/shapes/weights/clip"
IMAGE_REWARD = "package:maskrl/shapes/weights/image_reward"


def rows_in(out):
    return read_rows(out, read_result(out))


def result(evaluation, numbers, label="any", images=8):
    return Result(evaluation, label, numbers, images, {}, {}, {})


def write_scores(folder, scores):
    """Write the results of a reward: two images of each prompt."""
    array = np.array(scores)
    names = [image_name(p, i) for p in range(len(array)) for i in range(2)]
    write_rows(
        folder, [{"filename": n, "score": s} for n, s in zip(names, array.flatten().tolist(), strict=True)]
    )
    error = array.mean(axis=1).std(ddof=1) / math.sqrt(len(array))
    numbers = {"mean": Number(float(array.mean()), float(error))}
    write_result(result("clip_score", numbers, images=array.size), folder)


def paint(folder, wrong):
    """Four images of each prompt; ``wrong`` says of how many the number is one too large, for each prompt in turn."""
    for p, prompt in enumerate(PROMPTS):
        clause = prompt.metadata["include"][0]
        write_prompt(folder, p, prompt)
        for i in range(4):
            image = spots.picture(clause["class"], clause["count"] + (i >= 4 - wrong[p % len(wrong)]))
            write_image(folder / image_name(p, i), image)
    return folder


def errors(first, second):
    return {line.name: line.difference.se for line in compare_files(first, second).lines}


# what is paired


@pytest.fixture
def two(tmp_path):
    write_scores(tmp_path / "a", [[1, 3], [10, 12], [25, 21]])
    write_scores(tmp_path / "b", [[2, 4], [11, 15], [26, 22]])
    return tmp_path / "a", tmp_path / "b"


def test_the_summary_files_are_compared_as_their_folders_are(two):
    expected = np.array([1, 2, 1]).std(ddof=1) / math.sqrt(3)
    assert errors(*two) == {"mean": pytest.approx(expected)}
    files = [folder / "summary.json" for folder in two]
    assert errors(*files) == errors(two[0], files[1]) == errors(*two)


def test_files_of_other_names_are_not_paired_by_rows_that_happen_to_lie_beside_them(two):
    first, second = two
    shutil.copy(second / "summary.json", first / "second.json")
    (line,) = compare_files(first / "summary.json", first / "second.json").lines
    assert line.difference.se == pytest.approx(math.hypot(line.first.se, line.second.se))


def test_without_rows_the_results_are_independent(two):
    (two[1] / "results.jsonl").unlink()
    (line,) = compare_files(*two).lines
    assert line.difference.se == pytest.approx(math.hypot(line.first.se, line.second.se))


@pytest.mark.parametrize("row", [{"score": None}, {"score": "no"}, {}])
def test_damaged_rows_are_one_line(two, row):
    rows = rows_in(two[0])
    rows[3] = {"filename": rows[3]["filename"], **row}
    digest = write_rows(two[0], rows)
    write_result(replace(read_result(two[0]), rows_sha256="another"), two[0])
    with pytest.raises(TrainingError, match=r"is not what was written beside its summary\.json"):
        compare_files(*two)
    write_result(replace(read_result(two[0]), rows_sha256=digest), two[0])
    with pytest.raises(TrainingError, match="damaged") as error:
        compare_files(*two)
    assert "\n" not in str(error.value)


def test_geneval_is_paired_by_task_and_overall_follows(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        rows = [
            {"filename": image_name(3 * t + p, i), "tag": task, "correct": bool(rng.integers(2))}
            for t, task in enumerate(TASKS)
            for p in range(3)
            for i in range(4)
        ]
        write_rows(tmp_path / name, rows)
        right = {task: [row["correct"] for row in rows if row["tag"] == task] for task in TASKS}
        numbers = {task: Number(sum(right[task]) / 12, 0.1) for task in TASKS}
        numbers["overall"] = Number(sum(number.mean for number in numbers.values()) / 6, 0.1)
        write_result(result("geneval", numbers, images=len(rows)), tmp_path / name)
    correct = [
        np.array([row["correct"] for row in rows_in(tmp_path / name)], dtype=float).reshape(6, 3, 4)
        for name in "ab"
    ]
    gains = (correct[1] - correct[0]).mean(axis=2)
    expected = gains.std(axis=1, ddof=1) / math.sqrt(3)
    found = errors(tmp_path / "a", tmp_path / "b")
    assert [found[task] for task in TASKS] == pytest.approx(expected.tolist())
    assert found["overall"] == pytest.approx(math.sqrt((expected**2).sum()) / 6)


# relative correctness


def test_equal_images_have_no_difference_and_no_error(tmp_path):
    folder = paint(tmp_path / "images", [1, 2])
    for name in "ab":
        ask(folder, tmp_path / name, make(spots.Counting))
    lines = compare_files(tmp_path / "a", tmp_path / "b").lines
    paired = {line.name: line.difference for line in lines if not math.isnan(line.first.se)}
    assert len(paired) == 9
    assert set(paired.values()) == {Number(0.0, 0.0)}
    assert {line.name for line in lines} - paired.keys() == {
        "wins_over_half",
        "wins_over_double",
        "top",
        "auc",
    }


def test_the_error_is_that_of_ratios_whose_prompts_are_drawn_anew(tmp_path):
    """It is the error that a bootstrap over prompts finds, where prompts have several numbers of right images."""
    for name, wrong in (("a", [0, 3, 1]), ("b", [2, 1, 4])):
        ask(paint(tmp_path / f"images-{name}", wrong), tmp_path / name, make(spots.Counting))
    line = next(
        line for line in compare_files(tmp_path / "a", tmp_path / "b").lines if line.name == "over_half"
    )
    right = {name: np.zeros(6) for name in "ab"}
    total = {name: np.zeros(6) for name in "ab"}
    for name in "ab":
        for row in rows_in(tmp_path / name):
            if row["correct"]:
                right[name][int(row["filename"][:5])] += 1
                total[name][int(row["filename"][:5])] += row["captions"][1] - row["captions"][0]
    means = {name: total[name].sum() / right[name].sum() for name in "ab"}
    assert line.difference.mean == pytest.approx(means["b"] - means["a"])
    moved = {name: 6 * (total[name] - means[name] * right[name]) / right[name].sum() for name in "ab"}
    assert line.difference.se == pytest.approx((moved["b"] - moved["a"]).std(ddof=1) / math.sqrt(6))
    drawn = np.random.default_rng(0).integers(6, size=(20_000, 6))
    drawn = drawn[right["b"][drawn].any(axis=1)]
    ratios = {name: total[name][drawn].sum(axis=1) / right[name][drawn].sum(axis=1) for name in "ab"}
    assert line.difference.se == pytest.approx((ratios["b"] - ratios["a"]).std(), rel=0.1)


# what a number may be called


@pytest.fixture
def images(tmp_path):
    return paint(tmp_path / "images", [1])


def labelled(cli, images, *arguments):
    done = cli("eval", *arguments, "--images", images, "--out", images.parent / "out")
    assert done.code == 0, done.err
    return json.loads((images.parent / "out" / arguments[0] / "summary.json").read_text())["label"]


@pytest.mark.parametrize("by_path", [False, True])
def test_a_clip_from_a_folder_is_called_after_it(cli, images, by_path, monkeypatch):
    from maskrl.component import open_path

    model = open_path(CLIP) if by_path else CLIP
    assert labelled(cli, images, "clip_score", "--model", model) == "CLIP score, 100 x cosine (clip)"


def test_other_weights_are_no_imagereward_and_no_paper_stands_beside_them(cli, images):
    name = labelled(cli, images, "image_reward", "--weights", IMAGE_REWARD)
    assert name == "ImageReward-other (image_reward)"
    assert not ImageRewardScore.published(name, 2212)
    out = images.parent / "out/image_reward"
    shown = cli("eval", "compare", out, out)
    assert (shown.code, "Mask-GRPO" in shown.out) == (0, False)


def test_the_published_weights_are_imagereward():
    name = name_weights(ImageReward.Config().weights)
    assert name == "ImageReward"
    assert [paper.numbers["mean"] for paper in ImageRewardScore.published(name, 8)] == [1.02, 1.23]


def test_the_old_spelling_of_its_weights_is_answered_with_the_new_one(cli, images):
    refused = cli("eval", "image_reward", "--images", images, "--reward", f"weights={IMAGE_REWARD}")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "write --weights X" in refused.err


def test_a_judge_is_never_trained(cli, images, monkeypatch):
    from maskrl.rewards.clip import Clip

    judged = []
    whole = Clip.score
    monkeypatch.setattr(
        Clip,
        "score",
        lambda self, *a: judged.append([p for m in self.modules for p in m.parameters()]) or whole(self, *a),
    )
    labelled(cli, images, "clip_score", "--model", CLIP)
    assert open_folder(images).per_prompt == 4
    assert judged[0]
    assert not any(parameter.requires_grad for parameters in judged for parameter in parameters)


def test_rows_that_do_not_have_the_means_of_the_summary_are_noticed(two):
    rows = [{**row, "score": row["score"] + 1} for row in rows_in(two[1])]
    digest = write_rows(two[1], rows)
    for rows_sha256 in (digest, None):  # whoever made the summary
        write_result(replace(read_result(two[1]), rows_sha256=rows_sha256), two[1])
        with pytest.raises(
            TrainingError, match=r"give mean = .*, and its summary\.json says .*: one of the two"
        ):
            compare_files(*two)


def test_rows_of_other_images_are_checked_too(two):
    rows = [{"filename": f"1{row['filename']}", "score": row["score"] + 1} for row in rows_in(two[1])]
    write_rows(two[1], rows)
    with pytest.raises(TrainingError, match=r"give mean = .*, and its summary\.json says .*: one of the two"):
        compare_files(*two)


def test_rows_that_are_gone_are_noticed_though_the_mean_is_the_same(two):
    write_rows(two[1], [{"filename": image_name(0, 0), "score": read_result(two[1]).numbers["mean"].mean}])
    with pytest.raises(
        TrainingError, match=r"are 1 rows, and its summary\.json says 6 images: one of the two"
    ):
        compare_files(*two)


def test_a_headline_that_is_not_that_of_the_tasks_is_noticed(tmp_path):
    for name, overall in (("a", 0.5), ("b", 0.9)):
        rows = [
            {"filename": image_name(t, i), "tag": task, "correct": i == 0}
            for t, task in enumerate(TASKS)
            for i in range(2)
        ]
        write_rows(tmp_path / name, rows)
        numbers = {"overall": Number(overall, 0.1)} | {task: Number(0.5, 0.1) for task in TASKS}
        write_result(result("geneval", numbers, images=len(rows)), tmp_path / name)
    with pytest.raises(TrainingError, match=r"give overall = 0\.5, and its summary\.json says 0\.9: one of"):
        compare_files(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {"mean": {"mean": None, "se": 0.1}}},
        {"numbers": {"mean": {"mean": "0.5", "se": 0.1}}},
        {"numbers": {"mean": 3}},
        {"numbers": []},
        {"images": "many"},
        {"settings": None},
        {"provenance": 3},
    ],
)
def test_a_summary_of_another_tool_is_one_line(two, change):
    path = two[0] / RESULT
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TrainingError, match="are damaged, or no evaluation's") as error:
        compare_files(*two)
    assert "\n" not in str(error.value)
