"""Files of weights: what they hold is read and never run, and what cannot be read is refused in one line."""

import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from maskrl.errors import RecipeError
from maskrl.weights import as_state_dict, fill, is_hub_id, read_file

LAYOUTS = {"zip": True, "legacy": False}  # how PyTorch pickles: since 1.6, and before


class Payload:
    """What an attacker would put into a checkpoint."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def save(found, path, layout="zip"):
    torch.save(found, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def refused(call, *arguments):
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_numbers_and_texts_are_read(tmp_path, layout):
    meta = {
        "seed": np.int64(3),
        "rate": np.float64(0.5),
        "done": np.bool_(True),
        "name": np.str_("x"),
        "CLASSES": ("person", "car"),
    }
    path = save({"meta": meta, "state_dict": {"a": torch.arange(3)}}, tmp_path / "a.pth", layout)
    found = read_file(path)
    assert found["meta"] == meta
    assert torch.equal(found["state_dict"]["a"], torch.arange(3))


def test_numbers_pickled_by_an_old_numpy_are_read(tmp_path):
    path = save({"seed": np.int64(3)}, tmp_path / "a.pth", "legacy")
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert b"numpy.core.multiarray" in path.read_bytes()
    assert read_file(path) == {"seed": 3}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_code_is_not_run(tmp_path, layout):
    target = tmp_path / "made"
    path = save({"state_dict": {"a": torch.ones(1)}, "meta": Payload(target)}, tmp_path / "a.pth", layout)
    assert "could run code" in refused(read_file, path)
    assert not target.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_pickle_is_no_attack(tmp_path, layout, share):
    whole = save({f"t{i}": torch.randn(40, 40) for i in range(4)}, tmp_path / "a.pth", layout).read_bytes()
    path = tmp_path / "short.pth"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "fetch it again" in refused(read_file, path)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors"])
def test_a_web_page_is_no_weights_file(tmp_path, name):
    (tmp_path / name).write_text("<html>not found</html>" * 20)
    message = refused(read_file, tmp_path / name)
    assert "fetch it again" in message
    assert "weights_only" not in message  # PyTorch proposes to run what the file holds
    assert len(message) < 200 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    assert refused(read_file, tmp_path / name) == f"there is no weights file {str(tmp_path / name)!r}"


def test_a_folder_is_no_file(tmp_path):
    assert "cannot be read" in refused(read_file, tmp_path)


def test_a_table_of_tensors_and_nothing_else(tmp_path):
    path = tmp_path / "a.pth"
    assert list(as_state_dict({"module.a": torch.ones(1)}, path)) == ["a"]
    for wrong in ([torch.ones(1)], {"a": 1}):
        assert "no plain state dict" in refused(as_state_dict, wrong, path)


def test_every_fault_of_a_state_dict_stands_in_one_line(tmp_path):
    layer = nn.Linear(2, 3)
    save_file({"weight": torch.ones(3, 3), "more": torch.ones(1)}, tmp_path / "a.safetensors")
    message = refused(fill, layer, read_file(tmp_path / "a.safetensors"), tmp_path / "a.safetensors")
    assert message.endswith(
        "does not fit Linear: 1 missing (bias); 1 unknown (more); 1 of another shape (weight (3, 3) for (3, 2))"
    )


def test_tensors_take_the_dtype_of_the_module(tmp_path):
    layer = nn.Linear(2, 3)
    tensors = {"weight": torch.ones(3, 2, dtype=torch.float16), "bias": torch.zeros(3)}
    fill(layer, tensors, tmp_path)
    assert layer.weight.dtype == torch.float32
    assert torch.equal(layer(torch.ones(1, 2)), torch.full((1, 3), 2.0))


def test_what_looks_like_a_hub_id():
    assert is_hub_id("facebook/mask2former")
    assert not any(map(is_hub_id, ("./a/b", "/a", "~/a", "a", "a/b/c")))
