"""Mean and covariance of features, batch by batch, in float64."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gaussian:
    """What the Fréchet distance knows of a set of features.

    Attributes:
        mean: float64 `(D,)`.
        covariance: float64 `(D, D)`, unbiased.
        count: number of samples; 0 if nobody said.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int = 0


class Moments:
    """Adds up batches of features, without keeping them.

    Each batch is centred on its own mean before its squares are taken, so that
    features far from zero lose no digits, and batches are joined by the
    formula of Chan, Golub and LeVeque (1979).

    Args:
        width: number of features of a sample.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = np.zeros(width)
        self.scatter = np.zeros((width, width))

    def update(self, features) -> None:
        """Adds features `(N, D)` of any floating type."""
        features = np.asarray(features, np.float64)
        count = len(features)
        if not count:
            return
        mean = features.mean(axis=0)
        centred = features - mean
        difference = mean - self.mean
        total = self.count + count
        shift = np.outer(difference, difference)
        self.scatter += centred.T @ centred
        self.scatter += shift * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    def gaussian(self) -> Gaussian:
        """Returns mean and covariance of everything so far.

        Raises:
            ValueError: of fewer than two samples there is no covariance.
        """
        if self.count < 2:
            raise ValueError(
                f"a covariance takes at least 2 samples, got {self.count}"
            )
        covariance = self.scatter / (self.count - 1)
        return Gaussian(self.mean, covariance, self.count)
