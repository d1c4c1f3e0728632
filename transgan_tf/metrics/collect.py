"""What scores need of a set of images: moments, some rows, logits."""

from dataclasses import dataclass

import numpy as np

from transgan_tf.checked import UserError
from transgan_tf.metrics.moments import Gaussian
from transgan_tf.metrics.moments import Moments

# Rows of features that are kept, for scores that compare samples one by one.
MOST_ROWS = 10_000


@dataclass(frozen=True)
class FeatureSet:
    """Features of a set of images.

    Attributes:
        count: number of images; 0 if nobody said.
        gaussian: mean and covariance of all features.
        rows: features of up to 10,000 of the images, spread evenly over the
            set, float32 `(rows, D)`; None where only moments are known.
        logits: of all images, float32 `(count, classes)`; None without them.
    """

    count: int
    gaussian: Gaussian
    rows: np.ndarray | None = None
    logits: np.ndarray | None = None


class Collector:
    """Takes the features of a set batch by batch, in order.

    Args:
        total: number of images of the whole set, at least 2.
        width, classes: of the feature network.
    """

    def __init__(self, total: int, width: int, classes: int):
        self.moments = Moments(width)
        kept = min(total, MOST_ROWS)
        self.places = np.linspace(0, total - 1, kept).astype("int64")
        self.rows = np.empty((kept, width), "float32")
        self.logits = np.empty((total, classes), "float32")

    def add(self, features, logits) -> None:
        """Adds the next images' features `(N, D)` and logits.

        Raises:
            UserError: one of them is not finite.
        """
        if not (np.isfinite(features).all() and np.isfinite(logits).all()):
            raise UserError(
                "the feature network returns numbers that are not finite: "
                "take another, or look at the images"
            )
        start = self.moments.count
        stop = start + len(features)
        first, last = np.searchsorted(self.places, (start, stop))
        self.rows[first:last] = features[self.places[first:last] - start]
        self.logits[start:stop] = logits
        self.moments.update(features)

    def result(self) -> FeatureSet:
        """Returns the whole set, once all of it was added."""
        has_logits = self.logits.shape[1] > 0
        return FeatureSet(
            self.moments.count,
            self.moments.gaussian(),
            self.rows,
            self.logits if has_logits else None,
        )
