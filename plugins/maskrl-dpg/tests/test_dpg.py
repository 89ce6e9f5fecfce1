"""DPG-Bench: its rules by hand-made tables, its file, its judge, and the whole from the command line."""

import json
import shutil
from functools import partial

import maskrl_dpg
import pytest
import tiny_blip
import torch
from maskrl_dpg import DpgBench
from maskrl_dpg.canary import COLORS, ask_the_obvious, plain
from maskrl_dpg.judges import BlipJudge, Judge, by_length, load_judge, prepare
from maskrl_dpg.questions import COLUMNS, Question, read_items
from maskrl_dpg.scoring import by_topic, score
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipImageProcessor

from maskrl import registry
from maskrl.cli import main
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.folder import evaluate_folder
from maskrl.evals.images import open_folder
from maskrl.testing import check_evaluation
from maskrl.types import Prompt

HEADER = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language"
)
RED = "A picture, red all over"
BLUE = "A picture that is blue"
TABLE = f"""{HEADER}
red0,"{RED}",,1,0,entity,whole,entity - whole (picture),is the picture red?
red0,"{RED}",,2,1,attribute,color,"attribute - color (picture, blue)",is the picture blue?
red0,"{RED}",,3,"1, 2",attribute,color,attribute - color (picture),is the picture black?
blue7,"{BLUE}",,1,0,attribute,color,attribute - color (picture),is the picture blue?
"""


@pytest.fixture(scope="session")
def learnt(tmp_path_factory):
    """A tiny judge that knows the colours."""
    return tiny_blip.write(tmp_path_factory.mktemp("learnt"))


@pytest.fixture
def folder(learnt, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(learnt, tmp_path / "judge")


@pytest.fixture
def table(tmp_path):
    (tmp_path / "dpg_bench.csv").write_text(TABLE, encoding="utf-8")
    return tmp_path / "dpg_bench.csv"


class Says(Judge):
    """Answers as it is told."""

    def __init__(self, *answers):
        self._answers = answers

    def answer(self, image, questions):
        return list(self._answers[: len(questions)])


def asked(*parents):
    return {i: Question(f"question {i}?", of, "entity - whole") for i, of in enumerate(parents, start=1)}


@pytest.mark.parametrize(
    ("parents", "answers", "expected"),
    [
        ([(), (), ()], "yyn", 2 / 3),
        ([(), (1,), (2,)], "yyy", 1),
        ([(), (1,), (2,)], "nyy", 0),  # a chain falls from its beginning
        ([(), (1,), (2,)], "yny", 1 / 3),
        ([(), (), (1, 2)], "yny", 1 / 3),  # of two parents both are needed
        ([(), (1,), ()], "nyy", 1 / 3),
        ([(2,), (3,), ()], "yyn", 1 / 3),  # in their order: 1 is looked at before 2 falls
        ([(1,)], "y", 1),
    ],
)
def test_a_child_counts_if_its_parents_do(parents, answers, expected):
    told = {i: {"y": "yes", "n": "no"}[one] for i, one in enumerate(answers, start=1)}
    assert score(asked(*parents), told) == pytest.approx(expected)


@pytest.mark.parametrize("answer", ["Yes", "yes.", "yes it is", "", "maybe"])
def test_nothing_but_yes_is_right(answer):
    assert score(asked(()), {1: answer}) == 0


def test_topics_count_what_was_answered_whatever_the_parents_are():
    questions = {
        1: Question("a", (), "entity - whole"),
        2: Question("b", (1,), "attribute - color"),
        3: Question("c", (1,), "attribute - size"),
    }
    assert by_topic(questions, {1: "no", 2: "yes", 3: "no"}) == {"entity": [0, 1], "attribute": [1, 2]}
    assert score(questions, {1: "no", 2: "yes", 3: "no"}) == 0


def test_numbers_are_means_over_questions_then_prompts(monkeypatch, table):
    judge = Says("yes", "no", "yes")
    monkeypatch.setattr(maskrl_dpg, "load_judge", lambda source: judge)
    evaluation = DpgBench(DpgBench.Config(questions=str(table)))
    rows = evaluation.judge([plain((1, 0, 0))] * 2, [Prompt(RED), Prompt(BLUE)])
    assert [row["score"] for row in rows] == pytest.approx([1 / 3, 1])
    assert [DpgBench.values(row)["dpg"] for row in rows] == pytest.approx([100 / 3, 100])
    assert evaluation.others(rows) == pytest.approx({"attribute": 100 * 2 / 3, "entity": 100})
    assert rows[0]["answers"] == {"1": "yes", "2": "no", "3": "yes"}


def test_the_table_is_read_as_it_is_published(table):
    items = read_items(str(table))
    assert list(items) == [RED, BLUE]
    questions = items[RED].questions
    assert [question.parents for question in questions.values()] == [(), (1,), (1, 2)]
    assert questions[2] == Question("is the picture blue?", (1,), "attribute - color")
    assert questions[2].topic == "attribute"
    header, *rows = TABLE.splitlines()
    table.write_text("\n".join([header, header, *rows]), encoding="utf-8-sig")
    assert read_items(str(table)) == items  # a second header is no question


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        ("tuple,question", "tuples,question", "has no column 'tuple'"),
        (",3,", ",x,", "dpg_bench.csv:4: 'x' is no question's number"),
        (",3,", ",2,", "the item 'red0' has two questions 2"),
        ('"1, 2"', '"1, 9"', "question 3 of the item 'red0' depends on question 9"),
        ('"1, 2"', '"1; 2"', "'1; 2' is no question's number"),
        ("is the picture black?", "", "dpg_bench.csv:4: has nothing under 'question_natural_language'"),
        (BLUE, RED, "'red0' and 'blue7' have one prompt"),
        (TABLE.partition("\n")[2], "", "holds no questions"),
        ("is the picture blue?", '"is', "cannot be read as a table"),
    ],
)
def test_another_table_is_refused_in_one_line(table, found, put, said):
    assert TABLE.count(found)
    table.write_text(TABLE.replace(found, put), encoding="utf-8")
    with pytest.raises(RecipeError, match=said) as caught:
        read_items(str(table))
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_named_with_its_source(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no file .*TencentQQGYLab/ELLA"):
        read_items(str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes(b"gr\xfcn")
    with pytest.raises(RecipeError, match="cannot be read"):
        read_items(str(tmp_path / "latin.csv"))


@pytest.mark.parametrize("number", [1, " 1", "1"])
def test_of_a_prompts_rows_the_first_is_painted(number):
    assert DpgBench.wants(Prompt(RED, {"proposition_id": number}))
    assert DpgBench.wants(Prompt(RED))
    assert not DpgBench.wants(Prompt(RED, {"proposition_id": "2"}))
    assert not DpgBench.wants(Prompt(RED, {"proposition_id": COLUMNS[2]}))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (["yes"] * 6, "of a plain red picture .*'is the picture green.' and answered 'yes', not 'no'"),
        (["no"] * 6, "of a plain red picture .*'is the picture red.' and answered 'no', not 'yes'"),
        (["yes", *["no"] * 5], "of a plain green picture"),  # blind
        (["yes.", *["no"] * 5], "of a plain red picture .* answered 'yes.', not 'yes'"),
    ],
)
def test_a_broken_judge_is_refused_by_name_of_what_failed(answers, said):
    with pytest.raises(TrainingError, match=f"no score is told: {said}"):
        ask_the_obvious(Says(*answers))


def test_a_judge_of_random_weights_tells_no_score_and_one_that_learnt_does(learnt, tmp_path, table):
    tiny_blip.write(tmp_path, learns=False)
    prompts = [Prompt(RED), Prompt(BLUE)]
    with pytest.raises(TrainingError, match="no score is told"):
        DpgBench(DpgBench.Config(questions=str(table), judge=str(tmp_path))).check(prompts)
    evaluation = DpgBench(DpgBench.Config(questions=str(table), judge=str(learnt)))
    check_evaluation(evaluation, prompts)
    with pytest.raises(RecipeError, match=r"no questions about 1 of 3 prompts, 'else' among them"):
        evaluation.check([*prompts, Prompt("else")])


def test_answers_do_not_depend_on_other_questions_or_their_order(learnt):
    judge, image = load_judge(str(learnt)), plain(COLORS["red"])
    questions = ["is the picture red?", "Is there a red picture?", "is the picture blue?", "red?"]
    alone = [judge.answer(image, [question])[0] for question in questions]
    assert judge.answer(image, questions) == alone
    assert judge.answer(image, questions[::-1]) == alone[::-1]
    assert (alone[0], alone[2]) == ("yes", "no")
    assert by_length([[1, 2], [3], [4, 5]]) == [[0, 2], [1]]  # nothing is filled up: that would be read


def test_pixels_are_those_of_the_published_processor():
    values = torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    image = torch.round(values * 255) / 255
    picture = Image.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    sizes = {"size": {"height": 16, "width": 16}, "resample": Image.Resampling.BICUBIC}
    theirs = BlipImageProcessor(**sizes)(picture, return_tensors="pt").pixel_values
    assert float((prepare(image, 16) - theirs).abs().max()) < 0.1  # it may resize by another library


def test_its_network_is_listed_and_frozen(learnt):
    (network,) = load_judge(str(learnt)).modules
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_default_judge_is_named_when_the_hub_cannot_be_reached(table):
    with pytest.raises(
        RecipeError, match="'Salesforce/blip-vqa-capfilt-large' is no folder here, and the hub"
    ):
        DpgBench(DpgBench.Config(questions=str(table)))


def change(file, edit):
    found = json.loads(file.read_text())
    edit(found)
    file.write_text(json.dumps(found))


def drop(file):
    tensors = load_file(file)
    tensors.pop("vision_model.post_layernorm.weight")
    save_file(tensors, file)


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("config.json", lambda file: file.unlink(), "holds no config.json"),
        (
            "config.json",
            lambda file: change(file, lambda c: c.update(model_type="vilt")),
            "a 'vilt', which is no judge",
        ),
        (
            "config.json",
            lambda file: change(file, lambda c: c["vision_config"].update(hidden_size=64)),
            "of another shape",
        ),
        (
            "model.safetensors",
            lambda file: file.unlink(),
            "holds no model.safetensors and no pytorch_model.bin",
        ),
        ("model.safetensors", lambda file: file.write_bytes(file.read_bytes()[:-99]), "cannot be read"),
        ("model.safetensors", drop, "1 missing, vision_model.post_layernorm.weight"),
        ("vocab.txt", lambda file: file.write_text("[PAD]\n[UNK]\nyes\n"), "is not that of the network"),
        ("vocab.txt", lambda file: file.unlink(), "holds no vocab.txt and no tokenizer.json"),
        ("tokenizer_config.json", lambda file: file.unlink(), "holds no tokenizer_config.json"),
    ],
)
def test_a_judge_that_is_not_whole_is_refused_in_one_line(folder, name, spoil, said):
    spoil(folder / name)
    with pytest.raises(RecipeError, match=said) as caught:
        load_judge(str(folder))
    assert "\n" not in str(caught.value)


@pytest.fixture
def painted(tmp_path):
    """Two red pictures for the red prompt, a blue and a red one for the other, in GenEval's layout."""
    for index, (text, colors) in enumerate([(RED, ("red", "red")), (BLUE, ("blue", "red"))]):
        samples = tmp_path / f"images/{index:05d}/samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(json.dumps({"prompt": text}) + "\n")
        for number, color in enumerate(colors):
            pixels = (plain(COLORS[color], 24) * 255).to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(samples / f"{number:05d}.png")
    return tmp_path / "images"


def evaluate(learnt, table, images, out):
    command = ["eval", "dpg", "--questions", table, "--judge", learnt, "--images", images, "--out", out]
    with pytest.raises(SystemExit) as end:
        main([*map(str, command), "--json"])
    return int(end.value.code or 0)


@pytest.fixture
def offered(monkeypatch):
    """Let the command find the package, which tests do not install."""
    offer = registry.Offer("evaluations", "dpg", "maskrl-dpg", "0.1.0", "maskrl_dpg:DpgBench", 1)
    found = registry.installed()
    if offer.name not in {one.name for one in found}:
        monkeypatch.setattr(registry, "installed", lambda: [*found, offer])


def test_from_the_command_line_a_folder_is_judged_and_judged_again_alike(
    offered, learnt, table, painted, tmp_path, capsys
):
    assert evaluate(learnt, table, painted, tmp_path / "once") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == f"DPG-other ({learnt.name})"
    numbers = {name: number["mean"] for name, number in found["numbers"].items()}
    # of three questions the first alone is right of a red picture; of the blue prompt's pictures one is blue
    assert numbers == pytest.approx(
        {"dpg": 100 * (1 / 3 + 1 / 3 + 1 + 0) / 4, "attribute": 100 / 6, "entity": 100}
    )
    assert found["images"] == 4
    assert evaluate(learnt, table, painted, tmp_path / "twice") == 0
    rows = [(tmp_path / out / "dpg/results.jsonl").read_bytes() for out in ("once", "twice")]
    assert rows[0] == rows[1]


def test_killed_in_the_middle_it_asks_only_what_is_left(learnt, table, painted, tmp_path, monkeypatch):
    asked, answer = [], BlipJudge.answer

    def mortal(judge, image, questions):
        asked.append(len(questions))
        if len(asked) == len(COLORS) + 3:
            raise KeyboardInterrupt
        return answer(judge, image, questions)

    monkeypatch.setattr(BlipJudge, "answer", mortal)
    evaluation = DpgBench(DpgBench.Config(questions=str(table), judge=str(learnt)))
    go = partial(evaluate_folder, evaluation, open_folder(painted), provenance={}, batch=1)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "killed")
    report = go(tmp_path / "killed")
    obvious = [len(COLORS)] * len(COLORS)
    assert asked == [*obvious, 3, 3, 1, *obvious, 1, 1]  # the third was asked again
    assert report.rows == go(tmp_path / "whole").rows


def test_another_judge_or_table_is_another_result(learnt, table, tmp_path):
    told = DpgBench(DpgBench.Config(questions=str(table), judge=str(learnt))).settings()
    moved = shutil.copytree(learnt, tmp_path / "moved")
    copy = shutil.copy(table, tmp_path / "copy.csv")
    again = DpgBench(DpgBench.Config(questions=str(copy), judge=str(moved)))
    assert again.settings() == told
    table.write_text(TABLE.replace("black", "white"), encoding="utf-8")
    assert DpgBench(DpgBench.Config(questions=str(table), judge=str(learnt))).settings() != told


def test_notes_say_what_the_numbers_are_not(learnt, table):
    evaluation = DpgBench(DpgBench.Config(questions=str(table), judge=str(learnt)))
    said = evaluation.notes([{"prompt": RED}, {"prompt": RED}], 2)
    assert "mPLUG" in said[0]
    assert "of 1 prompts and 2 images; the whole benchmark has 1,065 prompts, 4 images each" in said[1]
    assert len(evaluation.notes([{"prompt": str(i // 4)} for i in range(4260)], 4260)) == 1
