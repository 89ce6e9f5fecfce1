"""Pixels into Mask2Former and logits out of it, against plain loops; against mmdet in test_geneval_detector.py."""

import math

import mask2former_formula as formula
import numpy as np
import pytest
import torch

from maskrl.geneval.coco import CLASSES
from maskrl.geneval.instances import MEAN, STD, Frame, candidates, frame, prepare


def noise(*shape):
    return formula.noise("more", *shape).float()


@pytest.mark.parametrize(
    ("given", "resized", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((256, 256), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((640, 480), (1067, 800), (1088, 800)),
        ((100, 1000), (133, 1333), (160, 1344)),
    ],
)
def test_sizes_keep_the_proportions(given, resized, padded):
    sizes = frame(*given)
    assert (sizes.given, sizes.resized, sizes.padded) == (given, resized, padded)


@pytest.mark.parametrize("size", [(1, 2667), (2667, 1), (1, 1), (3, 9000)])
def test_a_strip_keeps_a_pixel(size):
    pixels, sizes = prepare(np.full((*size, 3), 200, dtype=np.uint8))
    assert min(sizes.resized) >= 1
    assert pixels.shape[-2:] == sizes.padded


def test_an_image_is_resized_padded_with_grey_and_normalised():
    pixels = formula.picture("wide", 30, 47)
    inputs, sizes = prepare(pixels)
    height, width = sizes.resized
    back = inputs[0].permute(1, 2, 0).double().numpy() * STD + MEAN
    padding = np.ones(sizes.padded, dtype=bool)
    padding[:height, :width] = False
    assert padding.any()
    assert np.abs(back[padding] - 128).max() < 1e-4
    for y, x in ((0, 0), (height - 1, width - 1), (height // 2, width // 3), (7, width - 1)):
        assert (
            np.abs(back[y, x] - by_hand(pixels, y, x, sizes.resized)).max() < 1.01
        )  # OpenCV rounds to 8 bits
    assert np.abs(back[:height, :width] - np.round(back[:height, :width])).max() < 1e-4


def by_hand(image, y, x, size):
    """Bilinear interpolation of [H, W, C] at one pixel of the resized image; edges are repeated."""
    place = [(at + 0.5) * old / new - 0.5 for at, old, new in zip((y, x), image.shape, size, strict=False)]
    low = [math.floor(p) for p in place]
    total = 0.0
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = 1.0
        for p, start, step in zip(place, low, (dy, dx), strict=True):
            share *= p - start if step else 1 - p + start
        row, column = (
            min(max(start + step, 0), limit - 1)
            for start, step, limit in zip(low, (dy, dx), image.shape, strict=False)
        )
        total = total + share * image[row, column].astype(np.float64)
    return total


def test_a_square_of_800_pixels_is_not_resampled():
    pixels = formula.picture("square", 800, 800)
    inputs, _ = prepare(pixels)
    assert np.array_equal(np.round(inputs[0].permute(1, 2, 0).numpy() * STD + MEAN), pixels)


def loops(class_logits, mask_logits, sizes, most=100):
    """Rows of class, box, score and pixels, in plain Python."""
    masks = [sizes_of(mask, sizes) for mask in mask_logits.double().numpy()]
    pairs = []
    for query, logits in enumerate(class_logits.double().tolist()):
        total = sum(math.exp(logit) for logit in logits)
        pairs += [(math.exp(logit) / total, query, c) for c, logit in enumerate(logits[:-1])]
    rows = []
    for probability, query, c in sorted(pairs, reverse=True)[:most]:
        inside = [
            (y, x, value) for y, row in enumerate(masks[query]) for x, value in enumerate(row) if value > 0
        ]
        if not inside:
            continue
        sure = sum(1 / (1 + math.exp(-value)) for _, _, value in inside) / (len(inside) + 1e-6)
        ys, xs = [y for y, _, _ in inside], [x for _, x, _ in inside]
        rows.append(
            (CLASSES[c], (min(xs), min(ys), max(xs) + 1, max(ys) + 1), probability * sure, len(inside))
        )
    return sorted(rows)


def sizes_of(mask, sizes):
    """[h, w] -> padded size, cropped, given size."""
    padded = [
        [by_hand(mask, y, x, sizes.padded) for x in range(sizes.padded[1])] for y in range(sizes.padded[0])
    ]
    cropped = np.array(padded)[: sizes.resized[0], : sizes.resized[1]]
    return [
        [by_hand(cropped, y, x, sizes.given) for x in range(sizes.given[1])] for y in range(sizes.given[0])
    ]


@pytest.mark.parametrize(("given", "shift"), [((21, 32), 0.0), ((40, 18), -0.5), ((25, 25), 0.4)])
def test_detections_are_those_of_plain_loops(given, shift):
    class_logits, mask_logits = 3 * noise(6, 81), noise(6, 8, 8) + shift
    mask_logits[2] = -1.0  # a query that sees nothing
    sizes = small_frame(*given)
    found = candidates(class_logits, mask_logits, sizes)
    rows = sorted(
        (name, one.box, one.score, int(one.mask.sum())) for name, kept in found.items() for one in kept
    )
    expected = loops(class_logits, mask_logits, sizes)
    assert [(row[0], row[1], row[3]) for row in rows] == [(row[0], row[1], row[3]) for row in expected]
    assert np.allclose([row[2] for row in rows], [row[2] for row in expected], atol=1e-5)
    assert 50 < len(rows) < 100


def small_frame(height, width):
    """As the real one, with 32 in place of 1333 and 800: plain loops take their time."""
    scale = 32 / max(height, width)
    resized = int(height * scale + 0.5), int(width * scale + 0.5)
    return Frame((height, width), resized, (32, 32))


def test_one_mask_may_have_several_classes_and_nothing_is_filtered():
    class_logits = torch.full((1, 81), -20.0)
    class_logits[0, [3, 64]] = torch.tensor([5.0, 4.0])
    found = candidates(class_logits, torch.full((1, 8, 8), 3.0), frame(16, 16))
    assert len(found) == 80
    first, second = found["motorcycle"][0], found["computer mouse"][0]
    assert first.box == second.box == (0, 0, 16, 16)
    assert first.score / second.score == pytest.approx(math.e, rel=1e-4)
    assert first.score == pytest.approx(float(torch.tensor(3.0).sigmoid()) * math.e / (1 + math.e), rel=1e-4)


def test_the_class_nothing_is_never_reported():
    class_logits = torch.zeros(2, 81)
    class_logits[:, 80] = 30.0
    found = candidates(class_logits, torch.ones(2, 8, 8), frame(16, 16))
    assert max(one.score for kept in found.values() for one in kept) < 1e-9
