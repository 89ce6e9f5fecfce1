"""On a CPU freed memory is kept for the next tensor: else the kernel clears every page of it again."""

import platform
import subprocess
import sys

import pytest

from maskrl.runtime import allocator

FEW = 100  # of huge pages of 2 MiB the loop would take 640, of pages of 4 KiB 327,680
SCRIPT = """
import resource
import torch
from maskrl.runtime.placement import Placement

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

Placement("cpu")
for _ in range(2):  # what lies between tensors makes the allocator take some more, at first
    before = faults()
    for _ in range(20):
        torch.ones(64 * 2**20, dtype=torch.uint8)
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="only glibc can be asked; elsewhere nothing changes",
)
def test_tensors_as_large_as_those_that_were_freed_take_no_new_page():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) < FEW


def test_a_c_library_that_cannot_be_asked_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())  # as musl's: it has no mallopt
    assert not allocator.keep_freed_memory()
