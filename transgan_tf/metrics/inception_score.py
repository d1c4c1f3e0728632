"""The Inception score, of any classifier.

Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016,
section 4: `exp(E_x KL(p(y|x) || p(y)))`.
"""

import numpy as np

from transgan_tf.metrics.tfgan import import_tfgan

SPLITS = 10


def inception_score(logits, splits: int = SPLITS) -> tuple[float, float]:
    """Returns mean and deviation of the scores of consecutive splits.

    Args:
        logits: `(N, classes)`, of samples in random order.
        splits: number of parts, at most N.

    Returns:
        Mean, from 1 to the number of classes, and standard deviation (over
        `splits`, not `splits - 1`, as in the authors' code).
    """
    score = import_tfgan("eval.classifier_metrics").classifier_score_from_logits
    parts = np.array_split(np.asarray(logits, np.float64), splits)
    scores = [float(score(part)) for part in parts]
    return float(np.mean(scores)), float(np.std(scores))
