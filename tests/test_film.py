"""The film of an image: what is recorded of its steps is what the rollout did, and what a report shows of it."""

import json
import math

import pytest
import torch
from toy import PROMPTS, toy_halves
from written_runs import film, update, write_run

from maskrl.grpo.collect import collect
from maskrl.report.films import read_film
from maskrl.report.groups import recorded_groups
from maskrl.report.page import render
from maskrl.training.film import films
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.transitions.random_remask import RandomRemask
from maskrl.types import StepIndex

REVEALED = PTheta2(PTheta2.Config())


def collected(**changes):
    made = toy_halves(**{"transition": REVEALED, **changes})
    return made, collect(made.actor, PROMPTS[:2], 0)


def test_every_token_came_in_the_step_that_revealed_it():
    _, batch = collected()
    seen = batch.trajectory
    for group in range(2):
        for one in films(batch, group):
            row = group * 3 + one["image"]
            for token, step in enumerate(one["revealed_in"]):
                assert seen.reveal_rank[row, step, token] >= 0
                assert seen.state[row, : step + 1, token].eq(seen.mask_id).all()
                assert not seen.state[row, step + 1 :, token].eq(seen.mask_id).any()


def test_a_tokens_log_p_is_what_the_network_says_of_it_and_a_steps_sum_is_what_the_loss_scores():
    made, batch = collected()
    seen = batch.trajectory
    for one in films(batch, 1):
        row = torch.tensor([3 + one["image"]])
        condition = made.generator.encode([PROMPTS[1]])
        for t in range(seen.num_steps):
            taken = seen.transitions(row, torch.tensor([t]))
            at = StepIndex(torch.tensor([t]), seen.num_steps)
            logits = made.generator.logits(taken.state, condition, at, torch.zeros(1))[taken.masked]
            log_p = taken.unpack(
                logits.log_softmax(-1).gather(-1, taken.pack(taken.proposals)[:, None]).squeeze(-1)
            )
            fresh = [token for token, step in enumerate(one["revealed_in"]) if step == t]
            assert [one["logp"][token] for token in fresh] == pytest.approx(
                log_p[0, fresh].tolist(), abs=1e-3
            )
            assert sum(one["logp"][token] for token in fresh) == pytest.approx(
                float(REVEALED.log_prob(logits, taken).detach()), abs=1e-2
            )


def test_the_best_and_the_worst_image_are_shown():
    _, batch = collected()
    for group in range(2):
        shown = [one["image"] for one in films(batch, group)]
        rewards = batch.rewards[group].tolist()
        assert [rewards[image] for image in shown] == [max(rewards), min(rewards)]


@pytest.mark.parametrize("credit", ["image", "step"])
def test_a_lesson_is_the_advantage_times_the_weight_of_the_steps_that_are_in_the_loss(credit):
    _, batch = collected(config={"credit": credit, **({"credit_decay": 0.6} if credit == "step" else {})})
    batch.__dict__.update(steps=torch.tensor([0, 2]), weights=torch.tensor([2.0, 0.5]))
    for one in films(batch, 0):
        adv = batch.adv[0, one["image"]].expand(3) if credit == "image" else batch.step_adv[0, one["image"]]
        assert one["lesson"] == pytest.approx([2.0 * float(adv[0]), 0.0, 0.5 * float(adv[2])])


def test_steps_that_did_not_paint_have_no_lesson_by_token():
    _, batch = collected(transition=RandomRemask(Ar.Config()))
    painted = collected()[1]
    for one, other in zip(films(batch, 0), films(painted, 0), strict=True):
        assert (one["lesson"], one["revealed_in"]) == (None, other["revealed_in"])


def test_the_page_reads_what_a_run_wrote(tmp_path):
    record = {"image": 0, "revealed_in": [1, 0], "logp": [math.log(0.5), -3.0], "lesson": [2.0, -1.0]}
    read = read_film(record, (1, 2))
    assert (read.steps, read.columns, read.p) == (2, 2, [0.5, 0.05])
    assert read.part == pytest.approx([-0.693, 6.0])
    assert not read_film({**record, "lesson": None}, None).lies_on_image


def test_a_run_of_before_says_that_it_has_no_record_and_a_damaged_one_is_told(tmp_path):
    folder = write_run(tmp_path / "run", [update(1)])
    assert "kept no record of how its images were unmasked" in render([folder])
    film(folder)
    assert [len(group.films) for group in recorded_groups(folder, [])] == [2, 2]
    page = render([folder])
    assert page.count('<figure class="film"') == 4
    assert "kept no record" not in page
    path = folder / "groups" / "update_00001.json"
    record = json.loads(path.read_text())
    record["groups"][0]["films"][0]["logp"].pop()
    path.write_text(json.dumps(record))
    page = render([folder])
    assert "kept no record" in page
    assert "groups/update_00001.json, or its picture, is damaged" in page
    for group in record["groups"]:
        del group["films"]
    path.write_text(json.dumps(record))
    assert [len(group.images) for group in recorded_groups(folder, [])] == [4, 4]
    assert "kept no record" in render([folder])
    assert "is damaged" not in render([folder])
    picture = path.with_suffix(".png")
    picture.write_bytes(picture.read_bytes()[:-40])
    assert "groups/update_00001.json, or its picture, is damaged" in render([folder])
