"""The official detector's checkpoint: its names and shapes are mmdet's own, and so are the logits after translation.

``provenance`` in the fixtures says how mmdet was run; docs/evaluation.md what was compared.
"""

import json
from pathlib import Path

import mask2former_formula as formula
import numpy as np
import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from maskrl.errors import RecipeError, TrainingError
from maskrl.geneval.detector import forward
from maskrl.geneval.mask2former import build_network, load_network, official_sizes
from maskrl.geneval.mmdet_checkpoint import convert, layout, read_checkpoint
from maskrl.geneval.self_test import check_file

KEYS = json.loads((formula.FIXTURES / "mmdet_mask2former_keys.json").read_text(encoding="utf-8"))
OFFICIAL = {name: tuple(shape) for name, shape in KEYS["shapes"].items()}
HERE = Path("some.pth")


def test_names_and_shapes_are_those_that_mmdet_builds():
    entries = list(layout(official_sizes()))
    assert {entry.name: entry.shape for entry in entries} == OFFICIAL
    assert len(entries) == len(OFFICIAL) == 649


def test_every_weight_of_the_network_is_given_at_full_size():
    with torch.device("meta"):
        converted = convert(
            {name: torch.empty(shape) for name, shape in OFFICIAL.items()}, official_sizes(), HERE
        )
        network = Mask2FormerForUniversalSegmentation(official_sizes())
    given = sum(tensor.numel() for name, tensor in converted.items() if not name.endswith("index"))
    own = {name: p.numel() for name, p in network.named_parameters() if "swin.layernorm" not in name}
    assert given == sum(own.values())


def stands_close(found, expected, tolerance):
    expected = torch.tensor(expected, dtype=torch.float64).reshape(found.shape)
    assert float((found.double() - expected).abs().max()) < tolerance


@pytest.mark.parametrize("case", formula.REFERENCE["networks"], ids=lambda case: str(case["size"]))
def test_logits_are_those_of_mmdet(case):
    class_logits, mask_logits = forward(
        formula.network(), formula.noise("input", 1, 3, *case["size"]).float()
    )
    assert list(mask_logits.shape) == case["mask_shape"]
    if len(case["class_logits"]) == len(class_logits):
        class_logits = class_logits.logsumexp(dim=-1)
    stands_close(class_logits, case["class_logits"], 2e-4)
    stands_close(mask_logits.flatten()[:: case["mask_every"]], case["mask_logits"], 2e-3)


@pytest.mark.parametrize("part", ["downsample", "w_msa.qkv", "attentions.1.attn.in_proj", "bias_table"])
def test_the_comparison_notices_a_wrong_translation(part):
    tensors = formula.checkpoint()
    for name in [name for name in tensors if part in name]:
        tensors[name] = tensors[name].flip(-1 if part == "downsample" else 0)
    case = formula.REFERENCE["networks"][0]
    network = build_network(convert(tensors, formula.sizes(), HERE), formula.sizes())
    class_logits, _ = forward(network, formula.noise("input", 1, 3, *case["size"]).float())
    with pytest.raises(AssertionError):
        stands_close(class_logits, case["class_logits"], 0.1)


def refused(call, *arguments):
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_fault_stands_in_one_line():
    tensors = formula.checkpoint()
    del tensors["backbone.norm0.bias"], tensors["panoptic_head.query_embed.weight"]
    tensors["panoptic_head.cls_embed.weight"] = torch.ones(134, 64)
    tensors["ema.step"] = torch.ones(1)
    message = refused(convert, tensors, formula.sizes(), HERE)
    assert message.startswith("'some.pth' does not fit mmdet's Mask2Former: ")
    for fault in (
        "2 missing (backbone.norm0.bias, panoptic_head.query_embed.weight)",
        "1 unknown (ema.step)",
        "1 of another shape (panoptic_head.cls_embed.weight (134, 64) for (81, 64))",
    ):
        assert fault in message


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_is_read_whatever_its_meta_holds(tmp_path, legacy):
    meta = {"CLASSES": ("person",), "config": "model = dict()", "seed": np.int64(3), "epoch": 50}
    tensors = {"a.weight": torch.arange(4.0)}
    path = tmp_path / "checkpoint.pth"
    torch.save({"meta": meta, "state_dict": tensors}, path, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_checkpoint(path)["a.weight"], tensors["a.weight"])


def test_a_plain_state_dict_will_do(tmp_path):
    torch.save({"module.a": torch.ones(1)}, tmp_path / "plain.pth")
    assert list(read_checkpoint(tmp_path / "plain.pth")) == ["a"]


@pytest.mark.parametrize("found", [{"meta": {}}, {"state_dict": 3}, [1, 2]])
def test_a_file_without_a_state_dict_is_none(tmp_path, found):
    torch.save(found, tmp_path / "other.pth")
    assert "holds no plain state dict" in refused(read_checkpoint, tmp_path / "other.pth")


def test_a_file_of_the_official_sizes_gives_the_logits_of_mmdet(tmp_path):
    tensors = {entry.name: formula.weight(entry.name, entry.shape) for entry in layout(official_sizes())}
    path = tmp_path / "mask2former-01234567.pth"
    torch.save({"meta": {}, "state_dict": tensors}, path, _use_new_zipfile_serialization=False)
    network, origin = load_network(str(path))
    path.unlink()  # 275 MB
    case = formula.REFERENCE["official_size"]
    class_logits, mask_logits = forward(network, formula.noise("input", 1, 3, *case["size"]).float())
    stands_close(class_logits.logsumexp(dim=-1), case["class_logits"], 5e-4)
    stands_close(mask_logits.flatten()[:: case["mask_every"]], case["mask_logits"], 5e-3)
    assert not origin.official
    with pytest.raises(TrainingError, match="fetch the file again"):
        check_file(origin)
