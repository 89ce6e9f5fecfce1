"""A distribution as a reader would write one in a file of his own: the mean colours of images."""

import numpy as np

from maskrl.interfaces import DistributionEvaluation


class Colours(DistributionEvaluation):
    """The mean colour of images, as a distribution."""

    width = 3

    def label(self, prompts, images):
        return "Colours"

    def features(self, images):
        return np.stack([image.double().mean(dim=(1, 2)).numpy() for image in images])

    def measure(self, mean, covariance):
        return {"spread": float(np.trace(covariance)), "light": float(mean.mean())}
