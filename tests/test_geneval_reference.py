"""GenEval's rules against the official code, image by image; ``provenance`` in the file says how its numbers were made.

The scenes are formulas (``geneval_scenes.py``); what the official functions said of them is stored.
"""

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

import built
import pytest
import torch
from geneval_scenes import CLASSES, pairs, scenes

from maskrl.evaluations.numbers import numbers
from maskrl.geneval.credit import FLOW_GRPO, PARTIAL, credit
from maskrl.geneval.metadata import TASKS, metadata_line
from maskrl.geneval.record import Record, details
from maskrl.geneval.scoring import iou, judge, relative_position, select
from maskrl.types import Prompt

REFERENCE = json.loads(
    (Path(__file__).with_name("fixtures") / "geneval_reference.json").read_text(encoding="utf-8")
)
GENEVAL = built.geneval()
IMAGE = torch.zeros(3, 1, 1)
SCENES = scenes()


@cache
def kept(number):
    scene = SCENES[number]
    return select(scene.candidates, scene.metadata["tag"], scene.max_overlap)


def official(number):
    return dict(
        zip(("correct", "strict", "score", "kept", "reason"), REFERENCE["images"][number], strict=True)
    )


def rows():
    return ((n, official(n)) for n in range(len(SCENES)))


def record(number, correct, reason):
    scene = SCENES[number]
    line = metadata_line(Prompt(scene.prompt, scene.metadata))
    return Record(
        f"{number:05d}.png",
        scene.metadata["tag"],
        scene.prompt,
        correct,
        reason,
        line,
        details(kept(number)),
    )


def test_the_scenes_cover_what_they_should():
    assert len(SCENES) == len(REFERENCE["images"]) > 3000
    for task in TASKS:
        verdicts = [row["correct"] for n, row in rows() if SCENES[n].metadata["tag"] == task]
        assert min(verdicts.count(0), verdicts.count(1)) > 100
    reasons = "\n".join(row["reason"] for _, row in rows())
    seen = (
        "; and ",
        "no target for",
        "<16, found 16",
        "found left of target",
        "found  target",
        "and left of",
    )
    for phrase in seen:
        assert phrase in reasons, phrase
    assert "<17" not in reasons  # sixteen are counted at most
    assert any(len(found) > 16 for scene in SCENES for found in scene.candidates.values())


def test_the_same_objects_are_kept_in_the_same_order():
    for n, row in rows():
        for name, places in zip(CLASSES, row["kept"], strict=True):
            candidates = SCENES[n].candidates[name]
            ours = kept(n).get(name, [])
            assert len(ours) == len(places), n
            assert all(found is candidates[place] for found, place in zip(ours, places, strict=True)), n
            assert (name in kept(n)) == bool(places), n


def test_details_are_the_official_text():
    text = "\n".join(details(kept(n)) for n in range(len(SCENES)))
    assert hashlib.sha256(text.encode()).hexdigest() == REFERENCE["details_sha256"]


def test_verdict_and_reason_are_the_official_ones():
    for n, row in rows():
        ours = judge(IMAGE, kept(n), SCENES[n].metadata, SCENES[n].color)
        assert ours == (bool(row["correct"]), row["reason"]), n


def test_the_reward_of_flow_grpo_is_reproduced():
    for n, row in rows():
        strict, score = credit(IMAGE, kept(n), SCENES[n].metadata, SCENES[n].color, FLOW_GRPO)
        assert strict == bool(row["strict"]), n
        assert score == pytest.approx(row["score"], abs=1e-12), n
    assert min(row["score"] for _, row in rows()) < -1


def test_partial_credit_is_that_without_its_faults():
    for n, row in rows():
        strict, score = credit(IMAGE, kept(n), SCENES[n].metadata, SCENES[n].color, PARTIAL)
        assert strict == bool(row["strict"]) == (score == 1), n
        assert 0 <= score <= 1, n
        wrong_relation = row["reason"].endswith(" target") or " target\n" in row["reason"]
        too_many = any(
            len(kept(n).get(clause["class"], ())) > 2 * clause["count"]
            for clause in SCENES[n].metadata["include"]
        )
        if too_many and not wrong_relation:
            assert score > row["score"], n
        elif not too_many and not wrong_relation:
            assert score == pytest.approx(row["score"], abs=1e-12), n


def test_positions_are_the_official_ones():
    for (a, b), relations in zip(pairs(), REFERENCE["relations"], strict=True):
        assert sorted(relative_position(a, b)) == relations, (a, b)


def test_overlaps_are_the_official_ones_but_for_single_precision():
    for (a, b), overlap in zip(pairs(), REFERENCE["iou"], strict=True):
        assert iou(a, b) == pytest.approx(overlap, rel=2**-23, abs=0), (a, b)


def test_the_official_summary_read_what_we_write():
    lines = [
        record(n, *judge(IMAGE, kept(n), SCENES[n].metadata, SCENES[n].color)).line() + "\n"
        for n in range(len(SCENES))
    ]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert digest == REFERENCE["summary"]["results_sha256"]


def test_the_summary_is_what_the_official_one_printed():
    printed = REFERENCE["summary"]
    judged = [asdict(record(n, bool(row["correct"]), row["reason"])) for n, row in rows()]
    ours = {name: number.mean for name, number in numbers(GENEVAL, judged).items()}
    assert len(judged) == printed["images"]
    assert f"{ours['correct_images']:.2%}" == printed["correct_images"]
    assert f"{ours['correct_prompts']:.2%}" == printed["correct_prompts"]
    assert f"{ours['overall']:.5f}" == printed["overall"]
    for task, (share, correct, images) in printed["tasks"].items():
        of_task = [row for row in judged if row["tag"] == task]
        assert (f"{ours[task]:.2%}", round(ours[task] * len(of_task))) == (share, correct)
        assert len(of_task) == images
    assert list(printed["tasks"]) == list(TASKS)
