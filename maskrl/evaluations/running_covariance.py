"""Mean and covariance of features that pass by: the memory is that of one covariance, however many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass
class RunningCovariance:
    """What is known of the features so far, in fp64.

    Attributes:
        count: N, how many.
        mean: Float [D].
        scatter: Float [D, D], the sum of (x - mean)(x - mean)^T.
    """

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def none(cls, width: int) -> RunningCovariance:
        """Begin with no features, of ``width`` numbers each."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def add(self, features: Array) -> None:
        """Take in features, Float [B, D]."""
        mean = features.mean(axis=0)
        centred = features - mean
        self.merge(RunningCovariance(len(features), mean, centred.T @ centred))

    def merge(self, other: RunningCovariance) -> None:
        """Take in what is known of other features.

        Source: Chan, Golub, LeVeque (1979), "Updating formulae and a pairwise algorithm for computing sample
        variances", equation 2.1: no difference of large sums, whatever the mean is.
        """
        total = self.count + other.count
        if other.count == 0:
            return
        apart = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(apart, apart * (self.count * other.count / total))
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    def covariance(self) -> Array:
        """Return the unbiased covariance, Float [D, D], of two features or more."""
        assert self.count > 1, f"{self.count} features have no covariance"
        return self.scatter / (self.count - 1)
