"""What many need and is written once: 8 bits, FLOPs, prompts that are cut, GenEval's names."""

import re
import warnings
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskrl.cut_prompts import CutPrompts
from maskrl.flops import count_flops
from maskrl.geneval import metadata
from maskrl.pixels import rounded, to_bytes
from maskrl.shapes.captions import Clause

ROOT = Path(__file__).parents[1]
SOURCES = [*(ROOT / "maskrl").rglob("*.py"), *(ROOT / "plugins").glob("*/src/**/*.py")]


@pytest.mark.parametrize(
    ("pattern", "homes"),
    [
        ("FlopCounterMode", {"flops.py"}),
        (r"\* 255\b", {"pixels.py", "shapes/detector.py"}),  # the detector's levels are not rounded
        (r"warnings\.warn\((?s:.{0,80})(reads|is cut)", {"cut_prompts.py"}),
        ('"single_object", "two_object"', {"geneval/metadata.py"}),
        ('"left of", "right of"', {"geneval/metadata.py"}),
        (r"\}es\b", {"geneval/wording.py"}),
    ],
)
def test_it_stands_once(pattern, homes):
    found = {path for path in SOURCES if re.search(pattern, path.read_text())}
    assert {str(path.relative_to(ROOT / "maskrl")) for path in found} == homes


def test_levels_are_rounded_to_the_nearest_and_even_as_files_are():
    images = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    assert torch.equal(rounded(images + 0.49 / 255), images)
    assert np.array_equal(to_bytes(images + 0.49 / 255), to_bytes(images))
    assert to_bytes(images).shape == (2, 16, 16, 3)
    assert to_bytes(images[0]).dtype == np.uint8
    half = torch.full((3, 1, 1), 0.5 / 255)
    assert to_bytes(half).max() == 0  # half to even


def test_judges_see_what_a_file_holds():
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.from_numpy(to_bytes(image)).permute(2, 0, 1) / 255, rounded(image))
    assert rounded(image.double()).dtype == torch.float32


def test_a_product_is_counted_twice_and_attention_as_its_products():
    a, b = torch.zeros(3, 5), torch.zeros(5, 7)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7
    q = torch.zeros(1, 2, 11, 8)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 2 * 11 * 11 * 8)


def test_cut_prompts_are_said_once_and_only_if_there_are_any():
    cut = CutPrompts("X", 77)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut.tell([])
    with pytest.warns(
        UserWarning, match=r"X reads 77 tokens of a prompt; this one is longer and is cut, .*: 'a a'$"
    ):
        cut.tell(["a a", "b b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut.tell(["c c"])


def test_names_are_those_that_metadata_accept():
    assert get_args(metadata.Task) == metadata.TASKS
    assert get_args(metadata.Relation) == metadata.RELATIONS
    assert [Clause("cross", None, n).words() for n in (1, 2, 4)] == ["a cross", "two crosses", "four crosses"]
    assert Clause("star", "orange").words() == "an orange star"
