"""How far the images of two times are apart, by their statistics.

The measures are those of TensorFlow Data Validation: the L-infinity distance
of the shares of categorical values, here labels, and the Jensen-Shannon
divergence of the histograms of numbers, here intensities
(https://www.tensorflow.org/tfx/data_validation/get_started).
"""

import numpy as np

# Of an intensity's 256 values: empty neighbours would count as drift in small
# datasets.
BINS = 32


def measure_drift(old: dict, new: dict) -> dict[str, float]:
    """Returns distances in [0, 1] by feature, of the split `train`.

    Args:
        old, new: contents of `statistics.json` of as many channels.
    """
    old, new = old["splits"]["train"], new["splits"]["train"]
    distances = {"labels": label_distance(old["labels"], new["labels"])}
    pairs = zip(old["channels"], new["channels"], strict=True)
    for number, (before, after) in enumerate(pairs):
        distances[f"intensity of channel {number}"] = divergence(
            before["histogram"], after["histogram"]
        )
    return distances


def label_distance(old: dict[str, int], new: dict[str, int]) -> float:
    """Returns the greatest difference of a label's shares."""
    before, after = sum(old.values()), sum(new.values())
    return max(
        (
            abs(old.get(name, 0) / before - new.get(name, 0) / after)
            for name in old | new
        ),
        default=0.0,
    )


def divergence(old: list[int], new: list[int]) -> float:
    """Returns the Jensen-Shannon divergence of two histograms, in bits.

    With M the mean of the distributions P and Q, the mean of the
    Kullback-Leibler divergences of P and Q from M: 0 for equal ones, 1 for
    those that share no bin.
    """
    p, q = (_distribution(histogram) for histogram in (old, new))
    mean = (p + q) / 2
    return float((_relative_entropy(p, mean) + _relative_entropy(q, mean)) / 2)


def _distribution(histogram):
    bins = np.reshape(histogram, (BINS, -1)).sum(axis=1)
    return bins / bins.sum()


def _relative_entropy(p, q):
    """Returns the Kullback-Leibler divergence of q from p in bits."""
    seen = p > 0
    return np.sum(p[seen] * np.log2(p[seen] / q[seen]))
