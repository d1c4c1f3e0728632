"""All scores by name: what each needs, and when it has too few samples."""

from collections.abc import Callable
from dataclasses import dataclass

from transgan_tf.checked import UserError
from transgan_tf.metrics import frechet
from transgan_tf.metrics import inception_score
from transgan_tf.metrics import kernel
from transgan_tf.metrics import neighbours
from transgan_tf.metrics.collect import FeatureSet

# A covariance of D features wants so many samples for each: for Inception's
# 2,048 that makes the 10,000 that the authors of the FID recommend.
SAMPLES_PER_FEATURE = 5
# Samples of each class that a split of the Inception score should hold.
SAMPLES_PER_CLASS = 4
# Nearest neighbours are further apart among fewer samples, so that shares of
# sets of other sizes do not compare.
ROWS_OF_NEIGHBOURS = 5_000


class MetricError(UserError):
    """A score that cannot be computed of what there is."""


@dataclass(frozen=True)
class Metric:
    """A score.

    Attributes:
        compute: function of the samples' and the reference's `FeatureSet`;
            returns numbers by name.
        least: samples, and images of a reference, that it takes at least.
        enough: function of a set and the number of features; tells whether the
            set is large enough for numbers that others would compare.
        needs: the attribute of a `FeatureSet` that it uses.
        compares: whether it uses a reference.
    """

    compute: Callable[[FeatureSet, FeatureSet | None], dict[str, float]]
    least: int
    enough: Callable[[FeatureSet, int], bool]
    needs: str
    compares: bool = True


def scores(
    names, samples: FeatureSet, reference: FeatureSet | None
) -> tuple[dict[str, float], list[str]]:
    """Computes scores.

    Args:
        names: keys of `METRICS`.
        samples, reference: the sets; no reference for scores without one.

    Returns:
        Numbers by name, and the names of those of too few samples.
    """
    numbers, few = {}, []
    for name in names:
        metric = METRICS[name]
        sets = [samples, reference] if metric.compares else [samples]
        numbers |= metric.compute(samples, reference)
        width = len(samples.gaussian.mean)
        if not all(metric.enough(one, width) for one in sets):
            few.append(name)
    return numbers, few


def check_names(names, classes: int) -> None:
    """Raises `MetricError` for scores that a feature network cannot give."""
    for name in names:
        if METRICS[name].needs == "logits" and not classes:
            raise MetricError(
                f"{name} needs a classifier's logits, which the feature "
                "network does not return: leave it out of the metrics"
            )


def check_count(names, count: int) -> None:
    """Raises `MetricError` for scores that need more samples."""
    for name in names:
        least = METRICS[name].least
        if count < least:
            raise MetricError(
                f"{name} takes at least {least} images, got {count}: score "
                "more, by --num_images, or another metric"
            )


def check_reference(names, reference: FeatureSet) -> None:
    """Raises `MetricError` for scores that a reference is not enough for."""
    for name in names:
        metric = METRICS[name]
        if not metric.compares:
            continue
        if getattr(reference, metric.needs) is None:
            raise MetricError(
                f"{name} needs {metric.needs} of the reference, which holds "
                "mean and covariance alone: leave it out of the metrics, or "
                "compare with images or what --write_reference wrote"
            )
        if 0 < reference.count < metric.least:
            raise MetricError(
                f"{name} takes a reference of at least {metric.least} images, "
                f"got {reference.count}: leave it out of the metrics"
            )


def _fid(samples, reference):
    distance = frechet.frechet_distance(samples.gaussian, reference.gaussian)
    return {"fid": distance}


def _inception_score(samples, reference):
    mean, deviation = inception_score.inception_score(samples.logits)
    return {"is": mean, "is_std": deviation}


def _kid(samples, reference):
    mean, deviation = kernel.kernel_distance(samples.rows, reference.rows)
    return {"kid": mean, "kid_std": deviation}


def _precision_recall(samples, reference):
    pair = neighbours.precision_recall(reference.rows, samples.rows)
    return dict(zip(("precision", "recall"), pair, strict=True))


def _density_coverage(samples, reference):
    pair = neighbours.density_coverage(reference.rows, samples.rows)
    return dict(zip(("density", "coverage"), pair, strict=True))


def _enough_for_covariance(one, width):
    # A file of mean and covariance alone does not say of how many.
    return one.count == 0 or one.count >= SAMPLES_PER_FEATURE * width


def _enough_for_splits(one, width):
    split = len(one.logits) // inception_score.SPLITS
    return split >= SAMPLES_PER_CLASS * one.logits.shape[1]


def _enough_for_subsets(one, width):
    return len(one.rows) >= kernel.SUBSET_SIZE


def _enough_neighbours(one, width):
    return len(one.rows) >= ROWS_OF_NEIGHBOURS


METRICS = {
    "fid": Metric(_fid, 2, _enough_for_covariance, "gaussian"),
    "is": Metric(
        _inception_score,
        inception_score.SPLITS,
        _enough_for_splits,
        "logits",
        compares=False,
    ),
    "kid": Metric(_kid, 2, _enough_for_subsets, "rows"),
    "precision_recall": Metric(
        _precision_recall,
        neighbours.NEAREST_FOR_PRECISION + 1,
        _enough_neighbours,
        "rows",
    ),
    "density_coverage": Metric(
        _density_coverage,
        neighbours.NEAREST_FOR_DENSITY + 1,
        _enough_neighbours,
        "rows",
    ),
}
