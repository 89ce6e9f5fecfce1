"""Pictures whose first row has a white spot for every object, and whose second row says which class they are of.

A detector that counts the spots, and rewards whose answer is known; recipes name them as ``spots.py:Counting``.
"""

import numpy as np
import torch

from maskrl.geneval.wording import NUMBERS
from maskrl.interfaces import Detection, Detector, RewardModel

CLASSES = ("dog", "bus", "toothbrush")


def picture(name, number):
    image = torch.zeros(3, 2, 16)
    image[:, 0, :number] = 1
    image[:, 1, CLASSES.index(name)] = 1
    return image


def said(prompt):
    """Return the number and the class that a caption names."""
    number, noun = prompt.text.removeprefix("a photo of ").split(" ", 1)
    return NUMBERS.index(number), next(name for name in CLASSES if noun.startswith(name))


class Counting(RewardModel):
    """Minus the distance between the number that is said and seen; nothing for another class."""

    def score(self, images, prompts):
        scores = []
        for image, (number, name) in zip(images, map(said, prompts), strict=True):
            there = float(image[0, 1, CLASSES.index(name)])
            scores.append(-there * abs(number - float(image[0, 0].sum())))
        return torch.tensor(scores)


class Reading(RewardModel):
    """Likes the words "two" and "four", whatever it is shown."""

    def score(self, images, prompts):
        return torch.tensor([float(said(prompt)[0] in (2, 4)) for prompt in prompts])


class Spots(Detector):
    classes = CLASSES
    colors = ("red",)

    def detect(self, image):
        name = CLASSES[int(image[0, 1].argmax())]
        mask = np.zeros((2, 16), dtype=np.bool_)
        return {name: [Detection((x, 0, x + 1, 1), 0.95, mask) for x in range(int(image[0, 0].sum()))]}

    def color(self, image, detection, class_name):
        raise AssertionError("no caption names a colour")
