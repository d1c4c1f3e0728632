"""Precision, recall, density and coverage, by nearest neighbours.

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing
Generative Models", NeurIPS 2019, equations 1 and 2; Naeem et al., "Reliable
Fidelity and Diversity Metrics for Generative Models", ICML 2020, equations 4
and 6. A sample's ball reaches to its k-th nearest neighbour in its own set.
"""

import numpy as np
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors

# The numbers of neighbours that the two papers recommend.
NEAREST_FOR_PRECISION, NEAREST_FOR_DENSITY = 3, 5


def precision_recall(
    real, fake, nearest: int = NEAREST_FOR_PRECISION
) -> tuple[float, float]:
    """Returns the shares of samples within the other set's balls.

    Args:
        real, fake: features `(N, D)` and `(M, D)`, more than `nearest` each.
        nearest: k.

    Returns:
        Precision: of the fake samples, those in a real one's ball. Recall: of
        the real samples, those in a fake one's. Both in [0, 1].
    """
    real_radii, fake_radii = _radii(real, nearest), _radii(fake, nearest)
    precise, recalled = 0, np.zeros(len(real), bool)
    start = 0
    for distances in _distances(fake, real):  # (some of M, N)
        radii = fake_radii[start : start + len(distances)]
        precise += (distances <= real_radii).any(axis=1).sum()
        recalled |= (distances <= radii[:, None]).any(axis=0)
        start += len(distances)
    return float(precise / len(fake)), float(recalled.mean())


def density_coverage(
    real, fake, nearest: int = NEAREST_FOR_DENSITY
) -> tuple[float, float]:
    """Returns how densely, and how widely, fake samples fill the real balls.

    Args:
        real, fake, nearest: as in `precision_recall`.

    Returns:
        Density: the mean number of real balls around a fake sample, over k; at
        least 0, about 1 for equal distributions. Coverage: the share of real
        balls that hold a fake sample, in [0, 1].
    """
    radii = _radii(real, nearest)
    around, covered = 0, np.zeros(len(real), bool)
    for distances in _distances(fake, real):
        inside = distances <= radii
        around += inside.sum()
        covered |= inside.any(axis=0)
    return float(around / (nearest * len(fake))), float(covered.mean())


def _radii(features, nearest):
    """Returns each sample's distance to its k-th neighbour `(N,)`."""
    neighbours = NearestNeighbors(n_neighbors=nearest, algorithm="brute")
    distances, _ = neighbours.fit(_float64(features)).kneighbors()
    return distances[:, -1]


def _distances(rows, columns):
    """Yields distances of some rows at a time to all columns."""
    return pairwise_distances_chunked(_float64(rows), _float64(columns))


def _float64(features):
    return np.asarray(features, np.float64)
