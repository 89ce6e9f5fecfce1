"""The reward that is served elsewhere: the same scores to the last bit, or an error, never anything between."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from reward_servers import impostor, send, serving

from maskrl.component import Chosen, build
from maskrl.errors import RecipeError, TrainingError
from maskrl.identity import identity
from maskrl.pixels import rounded
from maskrl.recipe import read_recipe
from maskrl.rewards.remote_messages import Judge, fingerprint
from maskrl.runtime.checkpoint import listed
from maskrl.runtime.metrics import is_wall_clock, read_rows
from maskrl.testing import check_reward
from maskrl.training.loop import train
from maskrl.types import Prompt

MINE = """
import os, signal, time
from pathlib import Path
import torch
from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel

class Mine(RewardModel):
    class Config(ComponentConfig):
        tint: float = 0.3
        forgets: int | None = None

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def check(self, prompts):
        for prompt in prompts:
            if prompt.metadata.get("asks") == "too much":
                raise RecipeError(f"{prompt.text!r} asks too much")

    def score(self, images, prompts):
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images, prompts):
        self.calls += 1
        if "DIE_AT" in os.environ and self.calls == int(os.environ["DIE_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
        if log := os.environ.get("LOG"):
            with Path(log).open("a") as file:
                file.write("".join(prompt.text + "\\n" for prompt in prompts))
        flat = images.float().flatten(1)
        red = images[:, 0].float().mean(dim=(1, 2)) * self.config.tint
        rough = (flat[:, 1:] - flat[:, :-1]).abs().sum(dim=1).sqrt()
        wanted = torch.tensor([float(len(p.text) + p.metadata.get("more", 0)) for p in prompts], device=red.device)
        return red + rough / wanted, {"red": red, "rough": rough / wanted}

    def term_weights(self):
        return {"red": 1, "rough": 0.5}

class Slow(RewardModel):
    def score(self, images, prompts):
        with Path(os.environ["LOG"]).open("a") as file:
            file.write(prompts[0].text + "\\n")
        time.sleep(0.5)
        return images.mean(dim=(1, 2, 3))

class Nan(RewardModel):
    def score(self, images, prompts):
        return images.mean(dim=(1, 2, 3)) / 0 * 0
"""
PROMPTS = [
    Prompt("a red circle", {"more": 3}),
    Prompt("two blue squares"),
    Prompt("a star", {"of": [1, {"x": None}]}),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKRL_REWARD_TOKEN", raising=False)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


@pytest.fixture
def mine(folder):
    return {"name": f"{folder}/mine.py:Mine"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server of ``mine``, wherever that lies: it is told by its contents."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "mine.py").write_text(MINE)
    with serving({"name": f"{folder}/mine.py:Mine"}) as url:
        yield url


def remote(*urls, **settings):
    section = {"name": "remote", "urls": list(urls), "wait": 0.01, "retries": 1, "timeout": 20.0, **settings}
    return build("rewards", section, Path())


def some_images(count=3, size=(20, 28), dtype=torch.float32):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)).to(dtype)


# the same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("prepare", [rounded, lambda images: images], ids=["of 8 bits", "of any numbers"])
def test_scores_and_terms_are_those_of_the_reward_itself(url, mine, folder, dtype, prepare):
    images = prepare(some_images()).to(dtype)
    local = build("rewards", mine, folder)
    found, terms = remote(url).score_terms(images, PROMPTS)
    total, columns = local.score_terms(images, PROMPTS)
    assert torch.equal(found, total)
    assert terms.keys() == columns.keys()
    assert all(torch.equal(terms[name], columns[name]) for name in columns)
    assert remote(url).term_weights() == local.term_weights()
    assert len(set(found.tolist())) == 3


def test_it_keeps_to_the_contract_of_rewards(url):
    check_reward(remote(url))


def test_of_8_bits_are_sent_and_judged_what_files_hold(url, mine, folder):
    images, coarse = some_images(), remote(url, pixels="8bit")
    found, told = coarse.score(images, PROMPTS), identity(coarse)
    local = build("rewards", mine, folder)
    assert torch.equal(found, local.score(rounded(images), PROMPTS))
    assert not torch.equal(found, local.score(images, PROMPTS))
    assert told == {"pixels": "8bit", "judge": identity(local)}


def test_it_is_who_judges_and_not_where(url, mine, folder):
    local = identity(Chosen("rewards", mine, folder))
    with serving(mine, folder) as other:
        assert identity(remote(url)) == identity(remote(other, url, timeout=3.0)) == local
    mix = {"name": "weighted_sum", "terms": {"a": {"reward": {"name": "remote", "urls": [url]}}}}
    assert identity(Chosen("rewards", mix, folder))["terms"]["a"]["reward"] == local


def test_prompts_are_looked_at_before_a_run(url):
    remote(url).check(PROMPTS)
    with pytest.raises(RecipeError, match=f"the reward server {url} says: 'a cat' asks too much$"):
        remote(url).check([*PROMPTS, Prompt("a cat", {"asks": "too much"})])
    with pytest.raises(
        RecipeError, match="the prompt 'a cat' cannot be sent to a reward server: Object of type"
    ):
        remote(url).check([Prompt("a cat", {"asks": {1, 2}})])


# runs


def comparable(run):
    return [{k: v for k, v in row.items() if not is_wall_clock(k)} for row in read_rows(run)]


def toml(**settings):
    return "{" + ", ".join(f"{key}={json.dumps(value)}" for key, value in settings.items()) + "}"


def run_of(toy_recipe, name, reward, updates=2, resume=False):
    recipe = read_recipe(
        toy_recipe, [f"reward={reward}", f"training.updates={updates}", "training.reward_batch=4"]
    )
    train(recipe, toy_recipe.parent / name, resume=resume, display=False)
    return comparable(toy_recipe.parent / name)


def test_a_run_is_the_same_and_may_change_over(url, toy_recipe, mine):
    """With the reward at hand; with it on a server; begun with one, continued with the other."""
    whole = run_of(toy_recipe, "local", toml(**mine), updates=3)
    elsewhere = toml(name="remote", urls=[url])
    assert run_of(toy_recipe, "remote", elsewhere, updates=3) == whole
    run_of(toy_recipe, "both", elsewhere, updates=1)
    run_of(toy_recipe, "both", toml(**mine), updates=2, resume=True)
    assert run_of(toy_recipe, "both", elsewhere, updates=3, resume=True) == whole


def test_a_run_is_not_continued_with_another_judge(toy_recipe, mine, folder):
    with serving(mine, folder) as url:
        run_of(toy_recipe, "run", toml(name="remote", urls=[url]), updates=1)
    with (
        serving({**mine, "tint": 0.4}, folder) as url,
        pytest.raises(RecipeError, match=r"the contents of reward are not .* tint was 0.3 and is 0.4"),
    ):
        run_of(toy_recipe, "run", toml(name="remote", urls=[url]), resume=True)


def test_a_server_that_is_killed_in_the_middle_of_a_batch_is_replaced(toy_recipe, mine, folder):
    whole = run_of(toy_recipe, "local", toml(**mine))
    judge = toy_recipe.with_name("judge.toml")
    judge.write_text(
        toy_recipe.read_text().replace(str(Path(__file__).with_name("toy_run.py")) + ":Red", mine["name"])
    )
    command = [
        sys.executable,
        "-m",
        "maskrl",
        "serve-reward",
        "--recipe",
        str(judge),
        "--port",
        "0",
        "--device",
        "cpu",
    ]
    log = folder / "log"
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "DIE_AT": "3"}
    ) as dying:
        try:
            first = re.search(r"http://\S+", dying.stdout.readline())[0]
            with (
                serving(mine, folder) as second,
                pytest.MonkeyPatch.context() as patch,
            ):
                patch.setenv("LOG", str(log))
                reward = toml(name="remote", urls=[first, second], wait=0.01)
                with pytest.warns(UserWarning, match="cannot be reached"):
                    found = run_of(toy_recipe, "run", reward)
            assert dying.wait(timeout=20) == -signal.SIGKILL
        finally:
            dying.kill()
    assert found == whole
    assert (
        len(log.read_text().splitlines()) == 2 * 2 * 4 - 2 * 4
    )  # of 4 portions of 4 images, those it had not done


def test_a_run_without_its_server_ends_with_a_line_and_is_saved(cli, toy_recipe, about, folder):
    calls = []

    def answer(handler):
        calls.append(handler.path)
        if len(calls) > 3:  # the look at the prompts, then two updates
            handler.close_connection = True
            return
        body = {"judge": about.judge}
        send(handler, json.dumps(body if handler.path == "/v1/check" else body | {
            "scores": [0.25, 0.5, 0.125, 1.0] * 2, "terms": {"red": [0.5] * 8}}).encode())  # fmt: skip

    with impostor(about, answer) as url, ignoring_warnings():
        result = cli("train", "--recipe", toy_recipe, "--run", folder / "run", "--set", "training.updates=4",
                     "--set", f"reward={toml(name='remote', urls=[url], retries=2, wait=0.01)}",
                     "--set", "checkpoint.every=100")  # fmt: skip
    assert result.code == 4
    assert result.err.splitlines()[-1].startswith(
        f"maskrl: no reward server answers: {url} cannot be reached"
    )
    assert [path.name for path in listed(folder / "run" / "checkpoints")] == ["update_00002"]
    assert len(calls) == 3 + 3


# servers that fail


@contextmanager
def ignoring_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scores(about, numbers=(1.0, 2.0, 3.0), **more):
    return json.dumps({"judge": about.judge, "scores": numbers, "terms": {}} | more).encode()


GARBAGE = {
    "no JSON": (lambda judge: b"<html>", "Invalid JSON"),
    "nothing": (lambda judge: b"", "Invalid JSON"),
    "too few": (lambda judge: scores(judge, (1.0, 2.0)), "answers 2 scores for 3 images"),
    "too many": (lambda judge: scores(judge, (1.0, 2.0, 3.0, 4.0)), "answers 4 scores for 3 images"),
    "too few of a term": (
        lambda judge: scores(judge, terms={"scores": [1.0]}),
        "answers 1 scores for 3 images",
    ),
    "NaN": (lambda judge: scores(judge, (1.0, float("nan"), 3.0)), "scores.1: .*finite"),
    "infinity": (lambda judge: scores(judge, (1.0, float("inf"), 3.0)), "scores.1: .*finite"),
    "null": (lambda judge: scores(judge, (1.0, None, 3.0)), "scores.1: .*valid number"),
    "texts": (lambda judge: scores(judge, ("1.0", "2.0", "3.0")), "scores.0: .*valid number"),
    "truth values": (lambda judge: scores(judge, (True, False, True)), "scores.0: .*valid number"),
    "no terms": (
        lambda judge: b'{"judge": "%s", "scores": [1.0, 2.0, 3.0]}' % judge.judge.encode(),
        "terms: Field",
    ),
    "of another": (lambda judge: scores(judge, judge="0" * 64), "for another reward than was asked"),
    "cut": (lambda judge: scores(judge)[:-9], "Invalid JSON"),
}


@pytest.fixture
def about(mine, folder):
    chosen = identity(Chosen("rewards", mine, folder))
    return Judge(reward="mine", version="0", judge=fingerprint(chosen), identity=chosen, term_weights=None,
                 max_request=2**20)  # fmt: skip


def test_garbage_is_no_score_and_the_next_server_is_asked(url, mine, folder, about):
    images = some_images()
    expected = build("rewards", mine, folder).score(images, PROMPTS)
    for said, (body, complaint) in GARBAGE.items():
        with impostor(about, lambda handler, body=body: send(handler, body(about))) as bad:
            with pytest.warns(UserWarning, match=complaint):
                found = remote(bad, url).score(images, PROMPTS)
            assert torch.equal(found, expected), said
            with (
                pytest.warns(UserWarning, match="the reward server"),
                pytest.raises(TrainingError, match=complaint) as caught,
            ):
                remote(bad).score(images, PROMPTS)
            assert "\n" not in str(caught.value)


def break_off(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"judge": ')
    handler.close_connection = True


def drip(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def redirect(handler):
    handler.send_response(307)
    handler.send_header("Location", "http://127.0.0.1:1/v1/score")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


FAILING = {
    "hangs": (lambda handler: time.sleep(1), "has not answered within 0.3 s"),
    "drips": (drip, "has not answered within 0.3 s"),
    "breaks off": (break_off, "cannot be reached"),
    "is ill": (lambda handler: send(handler, b"oh", 500), "answers 500: 'oh'"),
    "sends away": (redirect, "answers 307"),
}


@pytest.mark.parametrize("how", FAILING)
def test_a_server_that_fails_is_replaced(url, mine, folder, about, how):
    images, (behave, complaint) = some_images(), FAILING[how]
    with impostor(about, behave) as bad:
        remote(url).score(images, PROMPTS)
        with pytest.warns(UserWarning, match=complaint):
            found = remote(bad, url, timeout=0.3).score(images, PROMPTS)
        with (
            pytest.warns(UserWarning, match="the reward server"),
            pytest.raises(TrainingError, match=f"no reward server answers: .*{complaint}"),
        ):
            remote(bad, timeout=0.3, retries=0).score(images, PROMPTS)
    assert torch.equal(found, build("rewards", mine, folder).score(images, PROMPTS))


def test_an_answer_that_comes_late_is_not_taken_for_a_later_one(mine, folder, about):
    images, asked = some_images(), []

    def late(handler):
        asked.append(handler.path)
        if len(asked) == 1:
            time.sleep(0.5)
        send(handler, scores(about, (7.0, 8.0, 9.0) if len(asked) == 1 else (1.0, 2.0, 3.0)))

    with impostor(about, late) as url:
        patient = remote(url, timeout=0.3, wait=0.4)
        with pytest.warns(UserWarning, match="has not answered"):
            found = patient.score(images, PROMPTS)
        assert found.tolist() == patient.score(images, PROMPTS).tolist() == [1, 2, 3]
    assert len(asked) == 3


def test_the_server_that_answers_is_asked_first_the_next_time(url, about):
    asked = []

    def fail(handler):
        asked.append(handler.path)
        send(handler, b"{}", 503)

    with impostor(about, fail) as bad:
        one = remote(bad, url)
        with pytest.warns(UserWarning, match="answers 503"):
            one.score(some_images(), PROMPTS)
        one.score(some_images(), PROMPTS)
    assert len(asked) == 1


def test_who_has_left_is_not_served(folder, monkeypatch):
    monkeypatch.setenv("LOG", str(folder / "log"))
    with serving({"name": f"{folder}/mine.py:Slow"}, folder) as url:
        hasty = remote(url, timeout=0.1, retries=2)
        with ignoring_warnings(), pytest.raises(TrainingError, match=r"has not answered within 0\.1 s"):
            hasty.score(some_images(1), [Prompt("hasty")])
        remote(url).score(some_images(1), [Prompt("patient")])
    assert (folder / "log").read_text() == "hasty\npatient\n"


def test_processes_begin_at_different_servers(about, monkeypatch):
    asked = []

    def note(name):
        def answer(handler):
            asked.append(name)
            send(handler, scores(about))

        return answer

    with impostor(about, note("one")) as one, impostor(about, note("two")) as two:
        for rank in ("0", "1", "2"):
            monkeypatch.setenv("RANK", rank)
            remote(one, two).score(some_images(), PROMPTS)
    assert asked == ["one", "two", "one"]


def test_a_failed_reward_is_said_where_it_is_missed(folder):
    with serving({"name": f"{folder}/mine.py:Nan"}, folder) as url:
        line = "where it is served: the reward '.*Nan' gave nan for an image of 'a red circle'; rewards must be finite"
        with pytest.warns(UserWarning, match="503"), pytest.raises(TrainingError, match=line):
            remote(url).score(some_images(), PROMPTS)


# who judges, and for whom


def test_servers_that_judge_differently_are_refused(url, mine, folder):
    with serving({**mine, "tint": 0.4}, folder) as two:
        message = f"the reward servers {url} and {two} judge differently: tint is 0.3 and 0.4"
        with pytest.raises(RecipeError, match=message):
            identity(remote(url, two))
        with pytest.raises(RecipeError, match=message):
            remote(url, two).score(some_images(), PROMPTS)
        changed = remote(url)
        changed.check(PROMPTS)
        changed._servers._urls = (two,)  # as if it had been restarted there with another reward
        with (
            pytest.warns(UserWarning, match="the reward server"),
            pytest.raises(TrainingError, match="answers 409: this server judges by"),
        ):
            changed.score(some_images(), PROMPTS)


def test_one_that_is_not_there_is_done_without(url):
    with pytest.warns(UserWarning, match=r"127.0.0.1:1 cannot be reached .*; it is done without"):
        assert remote("http://127.0.0.1:1", url)._judge.reward.endswith("mine.py:Mine")
    with pytest.raises(TrainingError, match=r"no reward server answers: http://127\.0\.0\.1:1 cannot"):
        identity(remote("http://127.0.0.1:1"))


def test_a_token_is_asked_for_and_stands_nowhere(toy_recipe, mine, folder, monkeypatch):
    with serving(mine, folder, token="opensesame") as url:
        with pytest.raises(TrainingError, match="answers 401: this server wants its token"):
            remote(url)._judge  # noqa: B018
        monkeypatch.setenv("OTHER", "openbarley")
        with pytest.raises(TrainingError, match="answers 401"):
            remote(url, token_variable="OTHER")._judge  # noqa: B018
        monkeypatch.setenv("MASKRL_REWARD_TOKEN", "opensesame")
        run_of(toy_recipe, "run", toml(name="remote", urls=[url]))
    for file in (folder / "run").rglob("*"):
        assert file.is_dir() or b"opensesame" not in file.read_bytes(), file


def test_what_is_too_large_is_not_sent(mine, folder):
    with serving(mine, folder, most=3000) as url:
        remote(url).score(some_images(size=(4, 4)), PROMPTS)
        with pytest.raises(
            RecipeError, match=r"is more than the 3,000 that .* read: send fewer images at a time"
        ):
            remote(url).score(some_images(), PROMPTS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"urls": []}, "reward.urls: name at least one server"),
        (
            {"urls": ["localhost:80"]},
            r"reward.urls: 'localhost:80' is no address of a server: write http://HOST:PORT",
        ),
        ({"urls": ["http://h", "http://h:port"]}, "reward.urls: 'http://h:port' is no address"),
        ({"urls": ["http://me:secret@h"]}, "reward.urls: an address holds no password"),
        (
            {"urls": ["http://h"], "token_variable": "s-3cret!"},
            "reward.token_variable: names an environment variable",
        ),
        ({"urls": ["http://h"], "timeout": 0}, "reward.timeout: input should be greater than 0"),
        ({"urls": ["http://h"], "token": "s3cret"}, "reward.token: unknown key"),
    ],
)
def test_mistakes_are_one_line(toy_recipe, settings, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read_recipe(toy_recipe, [f"reward={toml(name='remote', **settings)}"])
    assert "\n" not in str(caught.value)
