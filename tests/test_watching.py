"""The page of a run that goes on: from files alone, for this machine alone, made again when something has changed."""

import json
import socket
import threading
import urllib.error
import urllib.request

import pytest
from written_runs import update, write_run

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.report import watching

HEALTHY = [update(n) for n in range(1, 21)]


@pytest.fixture
def served(tmp_path):
    """Serve a run; yield its folder and its address."""
    folder = write_run(tmp_path / "run", HEALTHY, planned=40)
    with watching.server(folder, 0) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield folder, f"http://127.0.0.1:{opened.server_port}/"
        finally:
            opened.shutdown()
            thread.join()


def get(address, **headers):
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers["ETag"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["ETag"]


def test_a_new_row_is_a_new_page_and_what_is_known_is_not_sent_again(served):
    folder, address = served
    status, page, tag = get(address)
    assert (status, "20 of 40 updates are made" in page) == (200, True)
    assert get(address, **{"If-None-Match": tag})[:2] == (304, "")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(update(21)) + "\n")
    status, page, other = get(address, **{"If-None-Match": tag})
    assert (status, "21 of 40 updates are made" in page, other == tag) == (200, True, False)


def test_a_run_that_is_being_written_is_read_and_left_as_it_is(served):
    folder, address = served
    with files.owned(folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert get(address)[0] == 200
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with files.owned(folder):  # nobody else has taken the lock
        pass


def test_a_page_of_another_site_gets_nothing(served):
    _, address = served
    assert get(address, Host="evil.example")[0] == 403
    assert get(address + "etc/passwd")[0] == 404


def test_a_run_that_is_gone_is_said_and_the_server_stays(served):
    folder, address = served
    moved = folder.rename(folder.with_name("elsewhere"))
    assert get(address)[0] == 503
    moved.rename(folder)
    assert get(address)[0] == 200


def test_nobody_else_can_reach_it(served):
    assert watching.HOST == "127.0.0.1"
    _, address = served
    port = int(address.rstrip("/").rpartition(":")[2])
    other = socket.socket()
    with other:
        other.settimeout(1)
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_a_taken_port_and_a_folder_without_a_run_are_lines(served, tmp_path):
    folder, address = served
    port = int(address.rstrip("/").rpartition(":")[2])
    with pytest.raises(TrainingError, match=f"cannot serve on port {port}: .*choose another --port"):
        watching.server(folder, port)
    with pytest.raises(RecipeError, match="holds no run"):
        watching.server(tmp_path, 0)
