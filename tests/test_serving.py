"""The reward service by itself: what it refuses, what it survives, and its own description."""

import base64
import io
import itertools
import json
import random
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from reward_servers import serving
from test_remote import MINE

from maskrl.component import Chosen
from maskrl.errors import RecipeError
from maskrl.rewards.remote_images import pack, unpack
from maskrl.rewards.remote_messages import PngFiles, Question, TensorFile
from maskrl.serving.listening import check_host, listen
from maskrl.serving.served import ServedReward

MOST = 2**16


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.py").write_text(MINE)
    return {"name": f"{folder}/mine.py:Mine"}


@pytest.fixture(scope="module")
def url(mine):
    with serving(mine, most=MOST) as url:
        yield url


def exchange(url, head, parts=()):
    """Send a request as it is written; return the status and the body of the answer."""
    host, port = url.removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)), timeout=20)) as line:
        line.sendall((head.replace("\n", "\r\n") + "\r\n\r\n").encode())
        try:
            for part in parts:
                line.sendall(part)
        except ConnectionError:  # it reads no more
            pass
        answer = b""
        while part := line.recv(2**16):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def post(path, **headers):
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Connection: close", "Content-Type: application/json"]
    return "\n".join([*lines, *(f"{key.replace('_', '-')}: {value}" for key, value in headers.items())])


def is_well(url):
    status, body = exchange(url, "GET /v1/judge HTTP/1.1\nHost: here\nConnection: close")
    return status == 200 and json.loads(body)["reward"].endswith("mine.py:Mine")


# what is too large


def test_a_request_of_a_gigabyte_is_refused_by_its_header(url):
    status, body = exchange(url, post("/v1/score", Content_Length=2**30))
    assert (status, json.loads(body)) == (
        413,
        {"detail": "a request has at most 65,536 bytes here (--max-request)"},
    )
    assert is_well(url)


def test_one_that_does_not_say_its_size_is_refused_once_so_much_has_come(url):
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    within = exchange(url, post("/v1/score", Transfer_Encoding="chunked"), [chunk] * 4 + [b"0\r\n\r\n"])
    beyond = exchange(url, post("/v1/score", Transfer_Encoding="chunked"), [chunk] * 5)
    assert [within[0], beyond[0]] == [422, 413]
    assert is_well(url)


def test_a_small_file_of_a_huge_picture_is_not_unpacked():
    file = io.BytesIO()
    Image.new("RGB", (800, 800)).save(file, format="PNG")
    assert len(file.getvalue()) < 2**13
    with pytest.raises(RecipeError, match=r"images: 1 of 800 x 800 pixels take more than 65,536 bytes"):
        unpack(PngFiles.model_construct(format="png", files=[file.getvalue()]), MOST)


# what is no request


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("{", 422, "JSON"),
        ("[" * 5000, 400, "parsing the body"),
        ("null", 422, "body: "),
        ("{}", 422, "body.judge: Field required"),
        ('{"judge": "\\ud800"}', 422, "body.judge: "),
        ('{"\\ud800": 1, "judge": "%s"}' % ("0" * 64), 422, "body: "),
        ('{"judge": "%s", "prompts": [{"text": "x"}], "images": {"format": "png", "files": ["QQ=="]}}' % ("0" * 64),
         409, "this server judges by"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_answered_with_a_line(url, text, status, said):
    code, body = exchange(url, post("/v1/score", Content_Length=len(text)), [text.encode()])
    detail = json.loads(body)["detail"]
    assert code == status, detail
    assert said in detail
    assert "\n" not in detail


def png(mode="RGB", size=(4, 4)):
    file = io.BytesIO()
    Image.new(mode, size).save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([b"GIF89a"], "a file is no PNG that can be read"),
        ([png()[:-30]], "a file is no PNG that can be read"),
        ([png("L")], "a PNG is RGB with 8 bits, not L"),
        ([png("RGBA")], "a PNG is RGB with 8 bits, not RGBA"),
        ([png(), png(size=(4, 5))], "all of a request have one size"),
    ],
)
def test_pictures_that_are_none(files, message):
    with pytest.raises(RecipeError, match=message):
        unpack(PngFiles.model_construct(format="png", files=files), MOST)


@pytest.mark.parametrize("kind", ["png", "safetensors"])
def test_a_damaged_file_is_a_line_or_a_picture(kind):
    noise = random.Random(0)
    images = torch.rand(1, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    images = torch.round(images * 255) / 255 if kind == "png" else images
    packed = pack(images)
    assert packed.format == kind
    file = packed.files[0] if kind == "png" else packed.file
    assert torch.equal(unpack(packed, MOST), images)
    refused = 0
    for _ in range(400):
        damaged = bytearray(file)
        for _ in range(noise.randint(1, 4)):
            damaged[noise.randrange(len(file))] = noise.randrange(256)
        cut = bytes(damaged[: noise.choice([len(file), noise.randrange(len(file))])])
        again = PngFiles.model_construct(format=kind, files=[cut])
        if kind == "safetensors":
            again = TensorFile.model_construct(format=kind, file=cut)
        try:
            assert unpack(again, MOST).shape[:2] == (1, 3)
        except RecipeError:
            refused += 1
    assert refused > 100


def test_every_image_has_a_prompt(mine):
    served = ServedReward(Chosen("rewards", mine, Path()), "cpu", MOST)
    question = {"judge": served.judge.judge, "prompts": [{"text": "x"}]}
    files = [base64.b64encode(png()).decode()] * 2
    read = Question.model_validate({**question, "images": {"format": "png", "files": files}})
    with pytest.raises(RecipeError, match="there are 2 images and 1 prompts; each image has one"):
        served.score(read)


# its own description


@pytest.mark.long
def test_schemathesis_finds_no_fault_with_its_own_description(mine):
    """Bodies that the description allows and others; half of the allowed ones ask this judge, some with pictures."""
    import schemathesis
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # a text that is no PNG is refused

    files = [base64.b64encode(file).decode() for file in (png(), png(), png("L"), b"", b"GIF")]
    schemathesis.openapi.format("base64", st.sampled_from(files))
    seen = set()
    headers = {"Authorization": "Bearer token"}
    with serving(mine, token="token", most=MOST) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json", headers=headers)
        judge = ServedReward(Chosen("rewards", mine, Path()), "cpu", MOST).judge.judge
        operations = [found.ok() for found in schema.get_all_operations()]
        for operation, mode in itertools.product(operations, GenerationMode):
            if mode.is_positive or operation.body:
                is_allowed = mode.is_positive and operation.path == "/v1/score"

                @settings(
                    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
                )
                @given(operation.as_strategy(generation_mode=mode), st.booleans())
                def ask(case, is_for_us):
                    if is_allowed and is_for_us:  # noqa: B023  # called at once
                        case.body["judge"] = judge
                    response = case.call_and_validate(
                        headers=headers, excluded_checks=[positive_data_acceptance]
                    )
                    seen.add((case.path, response.status_code))

                ask()
    assert seen >= {
        ("/v1/judge", 200),
        ("/v1/check", 200),
        ("/v1/check", 422),
        ("/v1/score", 409),
        ("/v1/score", 422),
    }
    assert max(status for _, status in seen) < 500


# where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_machines_need_a_token(host):
    with pytest.raises(RecipeError, match=f"--host {host}: other machines would reach the service"):
        check_host(host, None)
    check_host(host, "token")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_needs_none(host):
    check_host(host, None)


def test_the_command_says_what_is_wrong(cli, toy_recipe, tmp_path, monkeypatch):
    def serve(*arguments):
        result = cli("serve-reward", "--recipe", toy_recipe, *arguments)
        assert len(result.err.splitlines()) == 1
        return result.code, result.err

    monkeypatch.setenv("MASKRL_REWARD_TOKEN", "two words")
    assert serve("--port", 0) == (
        2,
        "maskrl: the environment variable MASKRL_REWARD_TOKEN holds no token: one word of visible ASCII characters"
        " is wanted\n",
    )
    monkeypatch.delenv("MASKRL_REWARD_TOKEN")
    assert "other machines would reach the service" in serve("--port", 0, "--host", "0.0.0.0")[1]
    (tmp_path / "token").write_text("\n")
    assert "holds no token" in serve("--port", 0, "--token-file", tmp_path / "token")[1]
    assert "cannot be read" in serve("--port", 0, "--token-file", tmp_path / "nothing")[1]
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert serve("--port", port) == (
            4,
            f"maskrl: cannot listen on 127.0.0.1, port {port}: Address already in use\n",
        )
    for name in [name for name in sys.modules if name.startswith("maskrl.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("maskrl.serving.app")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert serve("--port", 0) == (
        2,
        "maskrl: maskrl serve-reward needs 'fastapi': pip install 'maskrl[serve]'\n",
    )
