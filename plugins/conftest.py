"""What the plugins' tests share. They run from a clone, the plugins need not be installed; nothing may download."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import maskrl  # noqa: F401  # its guard must stand before anything imports torchvision
from maskrl.flops import count_flops
from maskrl.footprint import Scored
from maskrl.types import Pass, StepIndex

sys.path[:0] = [str(source) for source in sorted(Path(__file__).parent.glob("*/src"))]
sys.path.append(str(Path(__file__).parents[1] / "tests"))

from peaks import peak_of  # noqa: E402  # of the suite beside it


def noise(name, *shape):
    """Float64, uniform in [-1, 1): an integer hash of a name and an index, the same on every machine."""
    low = np.uint64(0xFFFFFFFF)
    x = np.arange(math.prod(shape), dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(zlib.crc32(name.encode()))) & low
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & low
    return torch.from_numpy(x.astype(np.float64) / 2**31 - 1).reshape(shape)


def weight(name, shape):
    """Return the weight that has this name."""
    if name == "logit_scale":
        return torch.tensor(3.0)
    if len(shape) == 1 and name.endswith(("weight", "bias")):  # of a norm, or a bias
        return (0.2 * noise(name, *shape) + (1 if name.endswith("weight") else 0)).float()
    if (len(shape) == 2 and "embedding" in name) or len(shape) < 2:
        return noise(name, *shape).float()
    return (2 * math.sqrt(3 / math.prod(shape[1:])) * noise(name, *shape)).float()


def weights(shapes):
    """Return the weights that have these names and shapes."""
    return {name: weight(name, tuple(shape)) for name, shape in shapes.items()}


def paint(name, height, width):
    """Paint blocks of random colours with some noise, a formula too: uint8 [3, height, width]."""
    rows, columns = (5 * torch.arange(side) // side for side in (height, width))
    mixed = 0.8 * noise(name, 3, 5, 5)[:, rows][:, :, columns] + 0.2 * noise(
        f"{name}, noise", 3, height, width
    )
    return ((mixed + 1) * 128).floor().clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="session")
def formula():
    """Make weights by name and shape: the scores of public code in ``reference.json`` are of these."""
    return weights


@pytest.fixture(scope="session", name="noise")
def noise_of_a_name():
    """Make numbers in [-1, 1) of a name and a shape, Float64."""
    return noise


@pytest.fixture(scope="session")
def picture():
    """Make the pictures of ``reference.json``, as a reward gets them: Float [1, 3, height, width]."""
    return lambda name, height, width: paint(name, height, width)[None].float() / 255


@pytest.fixture(scope="session")
def planned_and_measured():
    """Compare a pass of a generator with its cost: bytes at the peak and FLOPs, planned and measured.

    Of images whose first half is asked for, forward and backward; gradients are there already.
    """

    def compare(generator, prompt, rows, again):
        number = generator.spec.num_tokens
        cost = type(generator).cost(generator.config, text_tokens=8)
        if again:
            generator.checkpoint_activations()
        condition = generator.encode([prompt]).select(torch.zeros(rows, dtype=torch.long))
        tokens = torch.full((rows, number), generator.spec.mask_id)
        asked = (torch.arange(number) < number // 2).expand(rows, number)
        step = StepIndex(torch.zeros(rows, dtype=torch.long), 2)

        def run():
            logits = generator.logits(tokens, condition, step, torch.zeros(rows), asked)
            Scored.apply(logits).backward()

        run()
        masked = rows * (number // 2)
        planned = cost.footprint(Pass(rows, masked, 1, True, False, again, lambda network: None)).peak
        forward = rows * (cost.image_flops + number // 2 * cost.position_flops)
        flops = 3 * forward + (rows * cost.again_flops if again else 0)
        return (planned, peak_of(run)), (flops, count_flops(run))

    return compare


FAULTS = {
    "gone": "holds no|there is no file",
    "truncated": "cannot be read",
    "a tensor less": "1 missing",
    "a tensor more": "1 unknown",
    "another shape": "1 of another shape",
    "no tensors": "holds no",
    "unsafe": "could run code",
}


@pytest.fixture(params=FAULTS)
def spoil(request):
    """Make a pickled weights file bad, in every way in turn; return what its refusal says."""

    def change(path):
        found = torch.load(path)
        table = found.get("state_dict", found)
        last = next(reversed(table))
        if request.param == "a tensor less":
            del table[last]
        elif request.param == "a tensor more":
            table["vision_model.more"] = torch.zeros(1)
        elif request.param == "another shape":
            table[last] = torch.zeros(1, 2, 3, 4)
        elif request.param == "no tensors":
            found = [1, 2, 3]
        elif request.param == "unsafe":
            table[last] = Path("any class will do")
        torch.save(found, path)
        if request.param == "truncated":
            path.write_bytes(path.read_bytes()[:-1000])
        elif request.param == "gone":
            path.unlink()
        return FAULTS[request.param]

    return change
