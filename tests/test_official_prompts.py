"""The 553 prompts are the published file, byte for byte; anything else is refused."""

import hashlib
import json
from collections import Counter

import pytest

from maskrl.errors import TrainingError
from maskrl.geneval.coco import CLASSES, COLORS
from maskrl.geneval.metadata import RELATIONS, TASKS, check_prompts, metadata_line
from maskrl.geneval.official_prompts import GenEvalPrompts, check_official
from maskrl.geneval.wording import NUMBERS, counted, plural, with_article
from maskrl.interfaces import Detector
from maskrl.runtime.prompts import load_prompts
from maskrl.testing import check_prompts as check_contract
from maskrl.types import Prompt

SET = GenEvalPrompts(GenEvalPrompts.Config())
PROMPTS = SET.prompts()
BY_TASK = {task: [prompt for prompt in PROMPTS if prompt.metadata["tag"] == task] for task in TASKS}


def digest(lines):
    return hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()


def test_both_published_files_are_reproduced():
    metadata = [metadata_line(prompt) for prompt in PROMPTS]
    assert digest(metadata) == "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
    assert sum(len(line) + 1 for line in metadata) == 85_209
    texts = [prompt.text for prompt in PROMPTS]
    assert digest(texts) == "55b6e3650e980c13daf30569eb666e000faf19bfc2b7b4cbe999fcdb7aa9d680"


def test_the_tasks_follow_each_other():
    tags = [prompt.metadata["tag"] for prompt in PROMPTS]
    assert Counter(tags) == dict(zip(TASKS, (80, 99, 80, 94, 100, 100), strict=True))
    assert tags == sorted(tags, key=TASKS.index)


def test_the_set_is_known_by_name_and_equals_the_file(tmp_path):
    file = tmp_path / "evaluation_metadata.jsonl"
    file.write_text("".join(metadata_line(prompt) + "\n" for prompt in PROMPTS))
    assert load_prompts("geneval") == load_prompts(str(file)) == PROMPTS
    check_contract(SET)


class Coco(Detector):
    classes, colors = CLASSES, COLORS

    def detect(self, image):
        return {}

    def color(self, image, detection, class_name):
        return COLORS[0]


def test_every_prompt_can_be_judged():
    check_prompts(PROMPTS, Coco(Coco.Config()))


@pytest.mark.parametrize(
    "others",
    [
        PROMPTS[1:],
        PROMPTS[::-1],
        [Prompt("a photo of a bench or two", PROMPTS[0].metadata), *PROMPTS[1:]],
        [Prompt(PROMPTS[0].text, {**PROMPTS[0].metadata, "tag": "colors"}), *PROMPTS[1:]],
    ],
)
def test_other_prompts_are_refused_in_one_line(others):
    with pytest.raises(TrainingError, match="draws other prompts") as error:
        check_official(others)
    assert "\n" not in str(error.value)


def test_another_draw_is_refused_when_the_set_is_loaded(monkeypatch):
    monkeypatch.setattr("maskrl.geneval.official_prompts._SEED", 44)
    with pytest.raises(TrainingError, match="draws other prompts than GenEval's"):
        load_prompts("geneval")


def test_what_the_published_prompts_are_like():
    assert sorted(prompt.metadata["include"][0]["class"] for prompt in BY_TASK["single_object"]) == sorted(
        CLASSES
    )
    numbers = Counter(prompt.metadata["include"][0]["count"] for prompt in BY_TASK["counting"])
    assert numbers == {2: 26, 3: 28, 4: 26}
    relations = Counter(prompt.metadata["include"][1]["position"][0] for prompt in BY_TASK["position"])
    assert relations == dict(zip(RELATIONS, (19, 27, 26, 28), strict=True))
    clauses = [clause for prompt in PROMPTS for clause in prompt.metadata["include"]]
    assert not any(clause["class"] == "person" for clause in clauses if "color" in clause)


def test_a_subject_is_named_first_and_listed_last():
    for prompt in BY_TASK["position"]:
        reference, subject = prompt.metadata["include"]
        relation = subject["position"][0]
        words = f"{with_article(subject['class'])} {relation} {with_article(reference['class'])}"
        assert prompt.text == f"a photo of {words}"


def test_metadata_is_json_as_it_stands():
    for prompt in PROMPTS:
        assert json.loads(json.dumps(prompt.metadata)) == prompt.metadata


def test_the_plural_is_naive():
    assert plural("bus") == "buses"
    assert all(plural(noun) == f"{noun}s" for noun in ("sheep", "bench", "knife", "person"))
    assert (counted(1, "dog"), counted(2, "toothbrush")) == ("one dog", "two toothbrushs")
    assert (with_article("orange"), with_article("bus")) == ("an orange", "a bus")
    assert (NUMBERS[12], NUMBERS[20], len(NUMBERS)) == ("twelve", "twenty", 21)
