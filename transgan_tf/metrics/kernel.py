"""The kernel distance of two sets of features.

Bińkowski et al., "Demystifying MMD GANs", ICLR 2018, section 4: the unbiased
estimate of the squared maximum mean discrepancy under the kernel
`(x'y / D + 1)^3`, averaged over random subsets.
"""

from functools import cache

import numpy as np
import tensorflow as tf

from transgan_tf.metrics.tfgan import import_tfgan

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel_distance(
    first, second, subsets: int = SUBSETS, size: int = SUBSET_SIZE
) -> tuple[float, float]:
    """Returns mean and deviation over subsets; the mean may be below 0.

    Which rows make up a subset is drawn from a fixed seed, without putting
    back.

    Args:
        first, second: features `(N, D)` and `(M, D)`.
        subsets: number of subsets.
        size: rows of a subset; all rows of a smaller set.
    """
    size = min(size, len(first), len(second))
    rng = np.random.default_rng(0)
    distances = []
    for _ in range(subsets):
        pair = [
            tf.constant(_some(rows, size, rng), tf.float64)
            for rows in (first, second)
        ]
        distances.append(_unbiased(*pair))
    return float(np.mean(distances)), float(np.std(distances))


def _unbiased(first, second):
    """Returns TF-GAN's estimate of one block, which is the unbiased one."""
    log = tf.get_logger()
    level = log.level
    # TF-GAN 2.1 passes arguments that TensorFlow 2.21 warns of.
    log.setLevel("ERROR")
    try:
        return float(_estimate()(first, second, len(first)))
    finally:
        log.setLevel(level)


@cache
def _estimate():
    module = import_tfgan("eval.classifier_metrics")
    distance = module.kernel_classifier_distance_from_activations
    # A graph, since TF-GAN's loop over blocks is slow without.
    return tf.function(distance, autograph=False)


def _some(rows, size, rng):
    return np.asarray(rows)[rng.choice(len(rows), size, replace=False)]
