"""Colours of detected objects, with the CLIP of the shapes world, against a direct computation."""

import mask2former_formula as formula
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision import transforms

from maskrl.clip import load_clip
from maskrl.geneval.coco import COLORS
from maskrl.geneval.color import TEMPLATES, ColorClassifier, cut_out
from maskrl.interfaces import Detection


def scene(height=40, width=56):
    """A picture, and an object in it whose mask has holes: uint8 [H, W, 3], Detection."""
    mask = formula.noise("mask", height, width).numpy() > -0.5
    mask[:5], mask[:, :12], mask[30:], mask[:, 49:] = False, False, False, False
    return formula.picture("scene", height, width), Detection((12.0, 5.0, 49.0, 30.0), 0.9, mask)


@pytest.fixture(scope="module")
def clip():
    return load_clip("package:maskrl/shapes/weights/clip", None)


def test_colours_are_those_of_a_direct_computation(clip):
    network, tokenizer = clip
    image, found = scene()
    ours = ColorClassifier(network, tokenizer).similarities(image, found, "tv remote")
    grey = Image.new("RGB", (56, 40), "#999")
    cut = Image.composite(Image.fromarray(image), grey, Image.fromarray(found.mask)).crop((12, 5, 49, 30))
    size = network.visual.image_size[0]  # a pair, which would not keep the proportions
    prepared = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(network.visual.image_mean, network.visual.image_std),
        ]
    )(cut)
    with torch.no_grad():
        seen = F.normalize(network.encode_image(prepared[None])[0], dim=0)
        for color, similarity in zip(COLORS, ours.tolist(), strict=True):
            texts = [
                f"a photo of a {color} tv remote",
                f"a photo of a {color}-colored tv remote",
                f"a photo of a {color} object",
            ]
            features = F.normalize(network.encode_text(tokenizer(texts)), dim=1).mean(dim=0)
            assert similarity == pytest.approx(100 * float(seen @ F.normalize(features, dim=0)), abs=1e-4)


def test_only_the_object_and_its_box_are_seen(clip):
    classifier = ColorClassifier(*clip)
    image, found = scene()
    before = classifier.similarities(image, found, "car")
    around = np.where(found.mask[..., None], image, 255 - image)
    assert torch.equal(classifier.similarities(around, found, "car"), before)
    cut = np.array(cut_out(image, found))
    assert cut.shape == (25, 37, 3)
    inside = found.mask[5:30, 12:49]
    assert (cut[~inside] == 153).all()
    assert np.array_equal(cut[inside], image[found.mask])


def test_the_first_of_equal_colours_wins_and_every_class_has_its_own_texts(clip):
    image, found = scene()
    same = ColorClassifier(*clip, colors=("blue", "blue", "blue"))
    assert same.similarities(image, found, "car").unique().numel() == 1
    assert same.name(image, found, "car") == "blue"
    two = ColorClassifier(*clip)
    car = two.similarities(image, found, "car")
    assert not torch.allclose(two.similarities(image, found, "star"), car)
    assert torch.equal(two.similarities(image, found, "car"), car)
    assert all("{color}" in template for template in TEMPLATES)
