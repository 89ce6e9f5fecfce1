"""Inputs that are a formula, for FID beside other libraries: features, and pictures with fine detail and edges."""

import numpy as np

SIZES = ((256, 256), (512, 512), (384, 384), (640, 480), (333, 500), (101, 64))  # width, height
PLACES = [(int(37 * i * i + 11 * i) % 299, int(53 * i + 7) % 299, i % 3) for i in range(24)]


def features(number, width, seed):
    """Float [number, width], positive like Inception's, correlated, the second seed's further off."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(7).normal(size=(width, width)) / np.sqrt(width)
    return np.abs(rng.normal(size=(number, width)) @ mixing) * (1 + 0.2 * seed) + 0.1 * seed


def photograph(width, height):
    """UInt8 [height, width, 3]: waves of every length, a hard edge, and a checkerboard of single pixels."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [127.5 * (1 + np.sin((x * x + (c + 1) * y * y) / (90.0 + 40 * c))) for c in range(3)]
    image = np.stack(waves, axis=2)
    image[y > 0.7 * height] = 255
    board = ((x + y) % 2 == 0) & (x > 0.7 * width)
    image[board] = 0
    return np.rint(image).astype(np.uint8)
