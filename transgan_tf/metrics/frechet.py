"""The Fréchet distance of two Gaussians, in float64.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
Nash Equilibrium", NeurIPS 2017, equation 6.
"""

import numpy as np

from transgan_tf.metrics.moments import Gaussian


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Returns `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`.

    Symmetric, at least 0, and 0 for equal Gaussians up to rounding, also
    where covariances are singular.
    """
    difference = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    mixed = _trace_of_root(first.covariance, second.covariance)
    distance = difference @ difference + traces - 2 * mixed
    # Rounding can leave a distance of nothing just below it.
    return max(float(distance), 0.0)


def _trace_of_root(first, second):
    """Returns the trace of `(first @ second)^(1/2)`.

    With `first = A A'` and `second = B B'` it is the sum of the singular values
    of `A' B`. Taken so, no square root is drawn of a small eigenvalue of a
    product, which would turn a rounding error of 1e-16 into one of 1e-8.
    """
    return np.linalg.svd(
        _factor(first).T @ _factor(second), compute_uv=False
    ).sum()


def _factor(covariance):
    """Returns a matrix whose product with its transpose is the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))
