"""Scores against closed forms, independent formulas and hand-made clouds."""

import numpy as np
import pytest
import scipy.linalg

from transgan_tf.configs import METRICS as NAMES
from transgan_tf.metrics import registry
from transgan_tf.metrics.collect import MOST_ROWS
from transgan_tf.metrics.collect import Collector
from transgan_tf.metrics.frechet import frechet_distance
from transgan_tf.metrics.inception_score import inception_score
from transgan_tf.metrics.kernel import kernel_distance
from transgan_tf.metrics.moments import Gaussian
from transgan_tf.metrics.moments import Moments
from transgan_tf.metrics.neighbours import density_coverage
from transgan_tf.metrics.neighbours import precision_recall
from transgan_tf.metrics.registry import MetricError
from transgan_tf.metrics.tfgan import import_tfgan


def gaussian(features, batch_size=7):
    moments = Moments(features.shape[1])
    for start in range(0, len(features), batch_size):
        moments.update(features[start : start + batch_size])
    return moments.gaussian()


# === Moments ===


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_moments_are_those_of_all_at_once(batch_size):
    # Far from zero, where sums of squares would lose the digits.
    features = np.random.default_rng(0).normal(1e6, 0.5, (53, 5))
    one = gaussian(features, batch_size)
    assert one.count == 53
    np.testing.assert_allclose(one.mean, features.mean(0), rtol=1e-14)
    expected = np.cov(features, rowvar=False)
    np.testing.assert_allclose(one.covariance, expected, rtol=1e-8)


def test_moments_of_float32_are_taken_in_float64():
    features = np.float32(np.random.default_rng(1).normal(3.0, 1.0, (40, 3)))
    expected = np.cov(features.astype("float64"), rowvar=False)
    np.testing.assert_allclose(
        gaussian(features).covariance, expected, rtol=1e-13
    )


def test_one_sample_has_no_covariance():
    moments = Moments(2)
    moments.update(np.zeros((0, 2)))
    moments.update(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        moments.gaussian()


# === The Fréchet distance ===


def test_fid_of_commuting_gaussians_is_the_closed_form():
    rng = np.random.default_rng(2)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    first, second = rng.uniform(0.1, 4.0, (2, 5))
    means = rng.normal(size=(2, 5))
    distance = frechet_distance(
        Gaussian(means[0], axes * first @ axes.T),
        Gaussian(means[1], axes * second @ axes.T),
    )
    expected = np.sum((means[0] - means[1]) ** 2)
    expected += np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    assert distance == pytest.approx(expected, rel=1e-12)


# Samples, dimensions, and the ratio of the largest deviation to the smallest.
SETS = [
    (500, 40, 1.0),
    (500, 40, 1e4),
    (500, 40, 1e8),
    (30, 40, 1.0),
    (20, 200, 1e4),
    (20, 200, 1e8),
]


def two_sets(count, width, ratio):
    rng = np.random.default_rng(count + width)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    scales = np.logspace(0, -np.log10(ratio), width)
    first = rng.normal(size=(count, width)) * scales @ axes
    second = (rng.normal(size=(count + 3, width)) * 1.3 * scales) @ axes + 0.01
    return first, second


@pytest.mark.parametrize(("count", "width", "ratio"), SETS)
def test_fid_agrees_with_scipys_root_of_the_product(count, width, ratio):
    first, second = two_sets(count, width, ratio)
    covariances = [np.cov(x, rowvar=False) for x in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2)
    expected += np.trace(covariances[0] + covariances[1] - 2 * root.real)
    distance = frechet_distance(gaussian(first), gaussian(second))
    # scipy's root of a singular product is good to 1e-6 only.
    assert distance == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(("count", "width", "ratio"), SETS)
def test_fid_agrees_with_the_samples_own_singular_values(count, width, ratio):
    # tr((C1 C2)^(1/2)) without ever making a covariance.
    first, second = two_sets(count, width, ratio)
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (first, second)]
    mixed = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2)
    expected += sum(np.sum(x**2) for x in centred) - 2 * mixed
    distance = frechet_distance(gaussian(first), gaussian(second))
    assert distance == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(("count", "width", "ratio"), SETS)
def test_fid_of_a_set_with_itself_is_nothing(count, width, ratio):
    first, _ = two_sets(count, width, ratio)
    one = gaussian(first)
    trace = np.trace(one.covariance)
    assert 0 <= frechet_distance(one, one) < 1e-12 * trace


def test_fid_does_not_depend_on_order_or_batches():
    first, second = two_sets(300, 20, 1e3)
    distance = frechet_distance(gaussian(first, 300), gaussian(second, 300))
    for batch_size in (1, 13, 64):
        again = frechet_distance(
            gaussian(first[::-1], batch_size), gaussian(second, batch_size)
        )
        assert again == pytest.approx(distance, rel=1e-12)


def test_fid_agrees_with_tfgans_where_that_is_exact():
    first, second = two_sets(400, 24, 10.0)
    module = import_tfgan("eval.classifier_metrics")
    theirs = module.frechet_classifier_distance_from_activations(first, second)
    ours = frechet_distance(gaussian(first), gaussian(second))
    assert ours == pytest.approx(float(theirs), rel=1e-6)


# === The kernel distance ===


def direct_kernel_distance(first, second):
    """The unbiased estimate, from its definition, pair by pair."""

    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    def within(rows):
        count = len(rows)
        pairs = [
            kernel(rows[i], rows[j])
            for i in range(count)
            for j in range(count)
            if i != j
        ]
        return sum(pairs) / (count * (count - 1))

    across = np.mean([[kernel(x, y) for y in second] for x in first])
    return within(first) + within(second) - 2 * across


def test_kid_of_one_subset_is_the_direct_formula():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 17, 5))
    second = second * 1.2 + 0.3
    expected = direct_kernel_distance(first, second)
    mean, deviation = kernel_distance(first, second, subsets=3)
    # All rows are in every subset, in another order.
    assert mean == pytest.approx(expected, rel=1e-12)
    assert deviation < 1e-12
    reversed_rows, _ = kernel_distance(first[::-1], second, subsets=3)
    assert reversed_rows == pytest.approx(expected, rel=1e-12)


def test_kid_is_the_mean_over_subsets():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(40, 3)), rng.normal(0.2, 1.0, (31, 3))
    draws = np.random.default_rng(0)
    expected = []
    for _ in range(6):
        chosen = [
            rows[draws.choice(len(rows), 11, replace=False)]
            for rows in (first, second)
        ]
        expected.append(direct_kernel_distance(*chosen))
    mean, deviation = kernel_distance(first, second, subsets=6, size=11)
    assert mean == pytest.approx(np.mean(expected), rel=1e-10)
    assert deviation == pytest.approx(np.std(expected), rel=1e-10)


def test_kid_of_equal_distributions_is_about_nothing():
    first, second = np.random.default_rng(5).normal(size=(2, 900, 8))
    mean, deviation = kernel_distance(first, second, subsets=20, size=300)
    assert abs(mean) < 3 * deviation


# === The Inception score ===


def test_score_of_samples_that_look_like_nothing_is_one():
    assert inception_score(np.zeros((50, 7))) == pytest.approx((1.0, 0.0))


def test_score_of_sure_and_varied_samples_is_the_number_of_classes():
    logits = np.tile(np.eye(7) * 100.0, (10, 1))  # each split has them all
    assert inception_score(logits) == pytest.approx((7.0, 0.0))


def test_score_is_the_formula_in_each_split():
    logits = np.random.default_rng(6).normal(size=(23, 4)) * 2
    scores = []
    for part in np.array_split(logits, 3):
        p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
        divergence = (p * np.log(p / p.mean(0))).sum(1)
        scores.append(np.exp(divergence.mean()))
    expected = np.mean(scores), np.std(scores)
    assert inception_score(logits, 3) == pytest.approx(expected, rel=1e-12)


# === Nearest neighbours ===


def clouds(*centres, count=60, seed=0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(centre, 1.0, (count, 2)) for centre in centres]
    )


def test_a_dropped_mode_costs_recall_and_coverage_alone():
    real, fake = clouds(0, 100), clouds(0, 0, seed=1)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    assert precision > 0.85
    assert 0.4 < recall <= 0.5
    assert density > 0.8
    assert 0.4 < coverage <= 0.5


def test_an_invented_mode_costs_precision_and_density_alone():
    real, fake = clouds(0, 0), clouds(0, 100, seed=1)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    assert 0.4 < precision <= 0.5
    assert recall > 0.85
    assert 0.35 < density < 0.65
    assert coverage > 0.8


def test_neighbours_counted_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])
    fake = np.array([[0.5], [2.5], [30.0]])
    # Radii for k = 1: real 1, 1, 2, 7; fake 2, 2, 27.5.
    assert precision_recall(real, fake, 1) == pytest.approx((2 / 3, 4 / 4))
    # Real balls around 0.5: [-1, 1], [0, 2]; 2.5: [1, 5] and none else.
    density, coverage = density_coverage(real, fake, 1)
    assert density == pytest.approx((2 + 1 + 0) / 3)
    assert coverage == pytest.approx(3 / 4)


def test_neighbours_do_not_depend_on_how_distances_are_chunked():
    import sklearn

    real, fake = np.random.default_rng(7).normal(size=(2, 211, 6))
    whole = precision_recall(real, fake), density_coverage(real, fake)
    with sklearn.config_context(working_memory=0.01):
        parts = precision_recall(real, fake), density_coverage(real, fake)
    assert whole == parts


# === Collecting, and the registry ===


def collected(features, logits, batch_size=7):
    collector = Collector(len(features), features.shape[1], logits.shape[1])
    for start in range(0, len(features), batch_size):
        rows = slice(start, start + batch_size)
        collector.add(features[rows], logits[rows])
    return collector.result()


def random_set(count=30, width=5, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)).astype("float32")
    return features, rng.normal(size=(count, classes)).astype("float32")


def test_all_rows_of_a_small_set_are_kept():
    features, logits = random_set()
    one = collected(features, logits)
    np.testing.assert_array_equal(one.rows, features)
    np.testing.assert_array_equal(one.logits, logits)
    assert one.count == 30


def test_rows_of_a_large_set_are_spread_over_it():
    count = MOST_ROWS * 2 + 1
    features = np.arange(count, dtype="float32")[:, None]
    one = collected(features, np.zeros((count, 0), "float32"), batch_size=777)
    assert len(one.rows) == MOST_ROWS
    assert one.rows[0] == 0 and one.rows[-1] == count - 1
    steps = np.diff(one.rows[:, 0])
    assert set(steps) == {2.0, 3.0}
    assert one.logits is None
    assert one.gaussian.count == count


def test_the_configurations_names_are_the_registrys():
    assert NAMES == tuple(registry.METRICS)


def test_scores_are_computed_and_marked_where_samples_are_few():
    samples = collected(*random_set(seed=1))
    reference = collected(*random_set(seed=2))
    numbers, few = registry.scores(NAMES, samples, reference)
    assert list(numbers) == [
        "fid",
        "is",
        "is_std",
        "kid",
        "kid_std",
        "precision",
        "recall",
        "density",
        "coverage",
    ]
    # 30 samples are enough for 5 features and nothing else.
    assert few == ["is", "kid", "precision_recall", "density_coverage"]


@pytest.mark.parametrize(("counts", "few"), [((24, 30), 1), ((30, 24), 1)])
def test_fid_wants_five_samples_a_feature_in_both_sets(counts, few):
    sets = [collected(*random_set(count)) for count in counts]
    assert registry.scores(["fid"], *sets)[1] == ["fid"] * few


def test_statistics_alone_give_fid_and_nothing_that_needs_rows():
    samples = collected(*random_set())
    reference = type(samples)(0, samples.gaussian)
    assert registry.scores(["fid"], samples, reference)[0]["fid"] < 1e-12
    registry.check_reference(["fid", "is"], reference)
    with pytest.raises(MetricError, match="kid needs rows of the reference"):
        registry.check_reference(["kid"], reference)


def test_scores_that_cannot_be_had_are_named():
    with pytest.raises(MetricError, match="^is needs a classifier's logits"):
        registry.check_names(["fid", "is"], classes=0)
    with pytest.raises(MetricError, match="^is takes at least 10 images, got"):
        registry.check_count(["fid", "is"], 9)
    few = collected(*random_set(5))
    with pytest.raises(
        MetricError, match="^density_coverage takes a reference"
    ):
        registry.check_reference(["density_coverage"], few)
