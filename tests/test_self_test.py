"""A broken detector is found out before it judges: every way to be broken that the self-test knows."""

import math

import mask2former_formula as formula
import pytest
import torch
from PIL import Image

from maskrl.clip import load_clip
from maskrl.errors import RecipeError, TrainingError
from maskrl.geneval import self_test
from maskrl.geneval.coco import CLASSES
from maskrl.geneval.color import ColorClassifier
from maskrl.geneval.detector import Mask2FormerDetector, forward
from maskrl.geneval.mask2former import Origin

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


@pytest.fixture(scope="module")
def clip():
    return load_clip(CLIP, None)


def test_a_working_detector_passes_its_self_test(detector):
    detector.self_test()


def failing(*arguments, check=self_test.check_network):
    with pytest.raises(TrainingError, match="fails its self-test") as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def broken(folder, **tensors):
    """A fresh copy of the network with other tensors, by parts of their names."""
    network = Mask2FormerDetector(Mask2FormerDetector.Config(weights=str(folder), clip_model=CLIP)).modules[0]
    changed = 0
    for name, parameter in network.named_parameters():
        for part, value in tensors.items():
            if part in name.replace(".", "_"):
                parameter.fill_(value)
                changed += 1
    assert changed
    return network


def test_an_answer_that_is_not_finite_fails(folder):
    assert "not finite" in failing(broken(folder, class_predictor_bias=math.nan), forward)


def test_a_network_that_does_not_look_fails(folder):
    blind = broken(folder, patch_embeddings_projection_weight=0.0)
    assert "as it answers an empty picture" in failing(blind, forward)


def test_a_network_that_finds_nothing_fails(folder):
    empty = broken(folder, mask_projection_weight=0.0, mask_embedder_2_0_weight=0.0)
    assert "no pixel of any object" in failing(empty, forward)


def test_answers_that_change_fail(detector):
    stream = torch.Generator().manual_seed(0)

    def restless(network, pixels):
        class_logits, mask_logits = forward(network, pixels)
        return class_logits + 3 * torch.randn(class_logits.shape, generator=stream), mask_logits

    assert "in two ways" in failing(detector.modules[0], restless)


@pytest.mark.gpu
def test_an_accelerator_that_computes_nonsense_fails(detector):
    if not torch.cuda.is_available():
        pytest.skip("there is no accelerator")
    network = detector.modules[0].to("cuda")

    def nonsense(network, pixels):
        class_logits, mask_logits = forward(network, pixels)
        return (class_logits.flip(-1), mask_logits) if class_logits.is_cuda else (class_logits, mask_logits)

    try:
        self_test.check_network(network, forward)
        assert "otherwise than on the CPU" in failing(network, nonsense)
    finally:
        network.to("cpu")


def test_the_digits_of_a_file_name_are_checked():
    right = Origin("mask2former-0123abcd.pth", "0123abcd" + "f" * 56)
    self_test.check_file(right)
    for name in ("renamed.pth", "mask2former-0123abcd.bin", "some/folder"):
        self_test.check_file(Origin(name, "f" * 64))
    self_test.check_file(Origin("hub/name-0123abcd.pth", None))
    message = failing(Origin(right.name, "f" * 64), check=self_test.check_file)
    assert "begins with ffffffff: fetch the file again" in message


def test_a_clip_that_answers_everything_alike_fails(clip):
    network, tokenizer = load_clip(CLIP, None)
    self_test.check_colors(ColorClassifier(*clip))
    for name, parameter in network.named_parameters():
        if name == "visual.conv1.weight":
            parameter.zero_()
    assert "takes red for blue" in failing(ColorClassifier(network, tokenizer), check=self_test.check_colors)
    network.text_projection.fill_(math.nan)
    assert "not finite" in failing(ColorClassifier(network, tokenizer), check=self_test.check_colors)


def photographs(folder, *names):
    for name in names:
        Image.fromarray(formula.picture("picture", 32, 32)).save(folder / name)
    return str(folder)


def test_known_images_must_be_found(detector, folder, tmp_path):
    pixels = torch.from_numpy(formula.picture("picture", 32, 32)).permute(2, 0, 1).float() / 255
    found = detector.detect(pixels)
    best = max(found, key=lambda name: max(one.score for one in found[name]))
    assert max(one.score for one in found[best]) > 0.3
    known = photographs(tmp_path, f"{best}_1.png")
    self_test.check_known_images(self_test.read_known_images(known), detector.detect)
    (tmp_path / f"{best}_1.png").unlink()
    absent = next(name for name in CLASSES if name not in found)
    photographs(tmp_path, f"{absent}_7.png")
    settings = {"weights": str(folder), "clip_model": CLIP, "known_images": known}
    with pytest.raises(TrainingError, match=f"finds no {absent} on '{absent}_7.png'"):
        Mask2FormerDetector(Mask2FormerDetector.Config(**settings)).self_test()


@pytest.mark.parametrize(
    ("files", "complaint"),
    [((), "holds no photographs"), (("unicorn.png",), "'unicorn.png' is not named after")],
)
def test_known_images_need_names(tmp_path, files, complaint):
    with pytest.raises(RecipeError, match=complaint):
        self_test.read_known_images(photographs(tmp_path, *files))


def test_a_photograph_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "dog.jpg").write_text("no picture")
    with pytest.raises(RecipeError, match=r"dog\.jpg' cannot be read"):
        self_test.read_known_images(str(tmp_path))
