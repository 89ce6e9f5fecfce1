"""A test run that ends before its end leaves no process behind."""

import signal
import subprocess
import sys
import time

import psutil
import pytest
from processes import run

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, file=open(sys.argv[1], "w"), flush=True)
time.sleep(60)
"""


def test_a_process_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run([sys.executable, "-c", PARENT, tmp_path / "pid"], timeout=3)
    child = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_a_process_says_is_returned():
    done = run([sys.executable, "-c", "import sys; print('out'); sys.exit('err')"], timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "err\n")


def test_a_terminated_test_run_still_cleans_up():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
