"""The official detector: what it finds is what mmdet finds, what its numbers are called, and what it refuses.

The network is tiny, its weights a formula; the published weights are not at hand.
"""

import json
import os
import shutil
import sys

import cv2
import mask2former_formula as formula
import numpy as np
import pytest
import torch

from maskrl.component import build
from maskrl.errors import RecipeError
from maskrl.geneval.coco import CLASSES, COLORS
from maskrl.geneval.detector import Mask2FormerDetector, name_results
from maskrl.geneval.instances import prepare
from maskrl.geneval.mask2former import OFFICIAL, Origin
from maskrl.runtime.placement import Placement
from maskrl.testing import check_detector

CLIP = "package:maskrl/shapes/weights/clip"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny network in transformers' layout."""
    path = tmp_path_factory.mktemp("mask2former")
    formula.network().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def detector(folder):
    return Mask2FormerDetector(Mask2FormerDetector.Config(weights=str(folder), clip_model=CLIP))


@pytest.mark.slow
def test_it_keeps_the_contract(detector):
    check_detector(detector)
    assert detector.classes is CLASSES
    assert detector.colors is COLORS


@pytest.mark.parametrize("case", formula.REFERENCE["detections"], ids=lambda case: str(case["size"]))
def test_it_finds_what_mmdet_finds(detector, case):
    pixels = formula.picture("picture", *case["size"])
    inputs, _ = prepare(pixels)
    assert list(inputs.shape) == case["input_shape"]
    sampled = inputs.flatten()[:: case["input_every"]].double()
    assert torch.allclose(sampled, torch.tensor(case["input"], dtype=torch.float64), atol=1e-5)
    found = detector.detect(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    rows = [
        (CLASSES.index(name), *one.box, one.score, int(one.mask.sum()))
        for name, detections in found.items()
        for one in sorted(detections, key=lambda one: -one.score)
    ]
    rows.sort(key=lambda row: row[0])
    ours, mmdets = np.array(rows), np.array(case["found"], dtype=np.float64)
    assert ours.shape == mmdets.shape
    assert (ours[:, 0] == mmdets[:, 0]).all()
    assert np.abs(ours[:, 5] - mmdets[:, 5]).max() < 2e-3  # one pixel more in a mask of five moves its mean
    assert np.abs(ours[:, 1:5] - mmdets[:, 1:5]).max() <= 1
    assert np.abs(ours[:, 6] - mmdets[:, 6]).max() <= 1


@pytest.mark.parametrize(
    ("origin", "clip", "label"),
    [
        (Origin(OFFICIAL, "743b7d99" + "0" * 56), ("ViT-L-14", "openai"), "GenEval"),
        (Origin("renamed.pth", "743b7d99" + "0" * 56), ("ViT-L-14-quickgelu", "openai"), "GenEval"),
        (Origin(OFFICIAL, "743b7d98" + "0" * 56), ("ViT-L-14", "openai"), "GenEval-other"),
        (Origin("facebook/mask2former-swin-small-coco-instance", None), ("ViT-L-14", "openai"), "GenEval-HF"),
        (Origin("some/folder", None), ("ViT-L-14", "laion2b_s32b_b82k"), "GenEval-other"),
        (Origin(OFFICIAL, "743b7d99" + "0" * 56), ("ViT-B-32", "openai"), "GenEval-other"),
    ],
)
def test_only_official_weights_give_geneval(origin, clip, label):
    assert name_results(origin, clip) == label


def test_networks_are_placed_frozen_and_in_full_precision(detector):
    Placement("cpu").place_frozen(detector.modules)
    for module in detector.modules:
        assert not module.training
        assert not any(p.requires_grad or p.dtype != torch.float32 for p in module.parameters())


def test_a_callers_autocast_does_not_reach_the_detector(detector):
    pixels = torch.from_numpy(formula.picture("picture", 32, 32)).permute(2, 0, 1).float() / 255
    alone = detector.detect(pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = detector.detect(pixels)
        color = detector.color(pixels, alone[next(iter(alone))][0], "car")
    assert {name: [one.score for one in kept] for name, kept in within.items()} == {
        name: [one.score for one in kept] for name, kept in alone.items()
    }
    assert color == detector.color(pixels, alone[next(iter(alone))][0], "car")


def refused(tmp_path, **settings):
    with pytest.raises(RecipeError) as caught:
        build("detectors", {"name": "mask2former", "clip_model": CLIP, **settings}, tmp_path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_must_be_named_and_be_there(tmp_path):
    assert refused(tmp_path) == "detector 'mask2former': weights: is missing"
    for weights in ("gone.pth", "./gone", "some/gone.pth"):
        assert OFFICIAL in refused(tmp_path, weights=weights)
    assert "hub could not be reached" in refused(
        tmp_path, weights="facebook/mask2former-swin-small-coco-instance"
    )


def test_a_file_of_other_sizes_does_not_fit(tmp_path):
    torch.save({"meta": {}, "state_dict": formula.checkpoint()}, tmp_path / "tiny.pth")
    message = refused(tmp_path, weights="tiny.pth")
    assert "does not fit mmdet's Mask2Former" in message
    assert "of another shape" in message
    assert "for (96, 3, 4, 4)" in message


def test_a_damaged_file_is_to_be_fetched_again(tmp_path):
    torch.save({"a": torch.ones(9999)}, tmp_path / "whole.pth")
    (tmp_path / "part.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:20_000])
    assert "fetch it again" in refused(tmp_path, weights="part.pth")


def changed(folder, tmp_path, **settings):
    """A copy of the folder with other settings in its config."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **settings}))
    return copy


def test_a_folder_of_another_number_of_classes_is_refused(folder, tmp_path):
    wrong = changed(folder, tmp_path, id2label={"0": "cat", "1": "dog"}, label2id={"cat": 0, "dog": 1})
    assert "knows 2 classes; GenEval asks for COCO's 80" in refused(tmp_path, weights=str(wrong))


def test_a_folder_of_another_network_is_refused(folder, tmp_path):
    wrong = changed(folder, tmp_path, model_type="clip", architectures=["CLIPModel"])
    assert "is a clip, no mask2former" in refused(tmp_path, weights=str(wrong))


def test_a_folder_whose_weights_do_not_fit_is_refused(folder, tmp_path):
    wrong = changed(folder, tmp_path, dim_feedforward=32)
    assert "of another shape" in refused(tmp_path, weights=str(wrong))
    shutil.rmtree(wrong)
    wrong = changed(folder, tmp_path, decoder_layers=7)
    assert "missing" in refused(tmp_path, weights=str(wrong))
    (wrong / "model.safetensors").write_text("{}")
    assert "cannot be read" in refused(tmp_path, weights=str(wrong))


class Payload:
    """What an attacker would put into a checkpoint."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_code_in_a_folders_pickle_is_not_run(folder, tmp_path):
    wrong = changed(folder, tmp_path)
    (wrong / "model.safetensors").unlink()
    torch.save({"a": Payload(tmp_path / "made")}, wrong / "pytorch_model.bin")
    assert "cannot be read" in refused(tmp_path, weights=str(wrong))
    assert not (tmp_path / "made").exists()


def test_without_opencv_the_extra_is_named(folder, tmp_path, monkeypatch):
    assert cv2.__version__
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert "pip install 'maskrl[geneval]'" in refused(tmp_path, weights=str(folder))
