"""Scores of generators: what is measured, and against what."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.test_features import Network
from tests.test_features import save
from tests.tiny import tiny_generator
from transgan_tf import evaluation
from transgan_tf.checked import UserError
from transgan_tf.configs import EvaluationConfig
from transgan_tf.evaluation import EvaluationError
from transgan_tf.evaluation import Evaluator
from transgan_tf.generator import Generator
from transgan_tf.metrics.features import FeatureNetwork
from transgan_tf.metrics.reference import ReferenceError
from transgan_tf.metrics.reference import read_reference
from transgan_tf.metrics.reference import write_reference
from transgan_tf.metrics.registry import MetricError
from transgan_tf.sampling import generate
from transgan_tf.stores import ArrayStore
from transgan_tf.stores import DataError

pytestmark = pytest.mark.usefixtures("freed_graphs", "empty_cache")

IMAGES = np.random.default_rng(0).integers(0, 256, (37, 12, 12, 3), "uint8")
ALL = "fid,is,kid,precision_recall,density_coverage"


def network(classes=4, name="halves"):
    """Features are means of six parts of an image, logits four of them."""

    def function(images):
        parts = tf.reshape(images, (-1, 2, 6, 12, 3))
        features = tf.reshape(tf.reduce_mean(parts, axis=(2, 3)), (-1, 6))
        outputs = {"pool_3": features}
        if classes:
            outputs["logits"] = 5 * features[:, :classes]
        return outputs

    return FeatureNetwork(name, "f" * 16, None, 3, 6, classes, function)


def features_of(images):
    images = np.float32(images) / np.float32(127.5) - 1
    means = images.reshape(-1, 2, 6, 12, 3).mean(axis=(2, 3))
    return means.reshape(len(images), 6)


def make_generator(seed=1, **changes):
    """A generator whose images vary by more than a level of grey."""
    tf.keras.utils.set_random_seed(seed)
    generator = Generator(tiny_generator(**changes))
    generator.build((None, generator.config.latent_dim))
    for variable in generator.variables:
        variable.assign(variable * 3.0)
    return generator


def evaluator(features=None, strategy=None, **settings):
    features = features or network()
    strategy = strategy or tf.distribute.get_strategy()
    settings = {"num_images": 70, "metrics": ALL} | settings
    reference = evaluation.reference_of(ArrayStore(IMAGES), features, strategy)
    settings = EvaluationConfig(**settings)
    return Evaluator(features, reference, settings, strategy)


# === What is measured ===


def test_scores_are_those_of_the_images_that_sample_writes(tmp_path):
    generator = make_generator()
    one = evaluator(seed=5, metrics="fid")
    score = one.score(generator)["metrics"]["fid"]
    fake = features_of(generate(generator, 5 + np.arange(70)))
    real = features_of(IMAGES)
    difference = fake.mean(0) - real.mean(0)
    centred = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (fake, real)]
    mixed = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    expected = difference @ difference + sum((x**2).sum() for x in centred)
    assert score == pytest.approx(expected - 2 * mixed, rel=1e-4)


def test_the_protocol_names_all_that_numbers_depend_on():
    result = evaluator(seed=5).score(make_generator())
    assert result["protocol"] == {
        "weights": "exponential moving average",
        "precision": "float32",
        "num_images": 70,
        "seed": 5,
        "truncation": 1.0,
        "attention_noise": False,
        "pixels": "clipped to [-1, 1], rounded to uint8, half to even",
        "features": "halves",
        "features_sha256": "f" * 16,
        "resize": "none",
        "reference": ArrayStore(IMAGES).fingerprint,
        "reference_images": 37,
        "code": evaluation.code_version(),
        "tensorflow": tf.__version__,
    }
    few = ["is", "kid", "precision_recall", "density_coverage"]
    assert result["too_few"] == few
    json.dumps(result)


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    generator = make_generator()
    first = evaluator().score(generator)
    assert evaluator().score(generator) == first
    other = evaluator(seed=1000).score(generator)
    assert other["metrics"]["fid"] != first["metrics"]["fid"]


def test_attention_noise_is_measured_where_it_is_asked_for():
    generator = make_generator(attention_noise=True)
    for variable in generator.variables:
        if variable.name == "strength":
            variable.assign(tf.ones_like(variable))
    silent = evaluator().score(generator)
    noisy = evaluator(attention_noise=True).score(generator)
    assert noisy["protocol"]["attention_noise"] is True
    assert noisy["metrics"] != silent["metrics"]
    assert evaluator(attention_noise=True).score(generator) == noisy
    # A network without noise has none to add.
    plain = evaluator(attention_noise=True).score(make_generator())
    assert plain["protocol"]["attention_noise"] is False


REPLICAS = """
import itertools, json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
from tests.test_evaluation import evaluator, make_generator
from transgan_tf.metrics.features import load_features
from transgan_tf.training import make_exact, make_strategy
make_exact(0)
# The classifier is trained under the first, and in the cache for the second.
strategies = [make_strategy(name) for name in ("mirrored", "none")]
for strategy, network in itertools.product(
    strategies, ("classifier", sys.argv[1])
):
    features = load_features(network, strategy)
    with strategy.scope():
        generator = make_generator(attention_noise=True)
    one = evaluator(features, strategy, num_images=203, attention_noise=True)
    print(strategy.num_replicas_in_sync, json.dumps(one.score(generator)))
"""


@pytest.mark.slow
def test_one_and_two_replicas_give_identical_numbers(tmp_path):
    saved = save(tmp_path / "net", Network())
    result = subprocess.run(
        [sys.executable, "-c", REPLICAS, saved],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    *two, _, _ = lines = result.stdout.splitlines()
    assert [line[:3] for line in lines] == ["2 {", "2 {", "1 {", "1 {"]
    assert [line[2:] for line in two] == [line[2:] for line in lines[2:]]


def test_a_reference_is_computed_once(monkeypatch):
    first = evaluator().reference

    def refuse(*_):
        raise AssertionError("it computes again")

    monkeypatch.setattr(evaluation, "real_features", refuse)
    again = evaluator().reference
    np.testing.assert_array_equal(again.features.rows, first.features.rows)
    assert again.features.gaussian.count == 37
    assert again.name == first.name
    with pytest.raises(AssertionError, match="again"):
        evaluator(dataclasses.replace(network(), fingerprint="0" * 16))


def test_real_features_are_in_the_order_of_the_places():
    places = np.array([5, 3, 36, 0, 1])
    features = evaluation.real_features(
        ArrayStore(IMAGES), places, network(), tf.distribute.get_strategy()
    )
    expected = features_of(IMAGES[places])
    np.testing.assert_allclose(features.rows, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(features.logits, 5 * features.rows[:, :4])


def test_the_floor_compares_disjoint_halves(monkeypatch):
    seen = []
    compute = evaluation.real_features

    def note(store, places, *rest):
        seen.append(set(places))
        return compute(store, places, *rest)

    monkeypatch.setattr(evaluation, "real_features", note)
    result = evaluation.score_halves(
        ArrayStore(IMAGES), ["fid"], network(), tf.distribute.get_strategy()
    )
    assert len(seen[0]) == len(seen[1]) == 18 and not seen[0] & seen[1]
    assert result["metrics"]["fid"] > 0
    assert result["protocol"]["num_images"] == 18


# === What goes wrong ===


def test_images_that_are_not_finite_are_not_scored():
    generator = make_generator()
    generator.variables[0].assign(generator.variables[0] * np.nan)
    with pytest.raises(EvaluationError, match="images that are not finite"):
        evaluator().score(generator)


def test_sampling_ends_at_its_limit_or_when_asked(monkeypatch):
    with pytest.raises(EvaluationError, match="^interrupted after 0 of 70"):
        evaluator().score(make_generator(), stop=lambda: True)
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(clock))
    sentence = "^64 of 70 images took longer than evaluation.time_limit = 70 s"
    with pytest.raises(EvaluationError, match=sentence):
        evaluator(time_limit=70).score(make_generator())


def test_too_few_images_are_refused_before_any_is_made():
    with pytest.raises(MetricError, match="is takes at least 10 images, got 9"):
        evaluator(num_images=9)
    with pytest.raises(MetricError, match="is needs a classifier's logits"):
        evaluator(network(classes=0))
    with pytest.raises(EvaluationError, match="at least 2 images, got 1"):
        evaluation.real_features(
            ArrayStore(IMAGES), np.arange(1), network(), None
        )


def test_a_reference_that_is_not_enough_is_told_before_sampling():
    images = ArrayStore(IMAGES[:5])
    strategy = tf.distribute.get_strategy()
    few = evaluation.reference_of(images, network(), strategy)
    settings = EvaluationConfig(metrics="density_coverage")
    with pytest.raises(MetricError, match="reference of at least 6 images"):
        Evaluator(network(), few, settings, strategy)


def test_features_that_are_not_finite_are_told():
    broken = dataclasses.replace(
        network(), function=lambda x: {"pool_3": x[:, 0, 0] / 0.0}, width=3
    )
    with pytest.raises(UserError, match="numbers that are not finite"):
        evaluator(dataclasses.replace(broken, classes=0), metrics="fid")


def test_an_image_that_cannot_be_read_is_one_sentence():
    class Broken(ArrayStore):
        def decode(self, stored):
            tf.debugging.assert_less(stored, tf.constant(0, tf.uint8))
            return stored

    with pytest.raises(DataError, match="an image cannot be read"):
        evaluation.real_features(
            Broken(IMAGES),
            np.arange(4),
            network(),
            tf.distribute.get_strategy(),
        )


# === References in files ===


def test_a_reference_goes_through_a_file_and_back(tmp_path):
    reference = evaluator().reference
    write_reference(tmp_path / "ours.npz", reference, "f" * 16)
    again = read_reference(tmp_path / "ours.npz", 6, "f" * 16)
    for name in ("mean", "covariance"):
        np.testing.assert_array_equal(
            getattr(again.features.gaussian, name),
            getattr(reference.features.gaussian, name),
        )
    np.testing.assert_array_equal(again.features.rows, reference.features.rows)
    assert again.name.startswith(f"{reference.name}, from ours.npz, SHA-256 ")
    assert again.features.count == 37
    with pytest.raises(ReferenceError, match="of another feature network"):
        read_reference(tmp_path / "ours.npz", 6, "e" * 16)
    # What others read.
    with np.load(tmp_path / "ours.npz") as archive:
        assert archive["mu"].shape == (6,)
        assert archive["sigma"].shape == (6, 6)


def test_others_statistics_are_mu_and_sigma(tmp_path):
    gaussian = evaluator().reference.features.gaussian
    np.savez(
        tmp_path / "theirs.npz",
        mu=np.float32(gaussian.mean),
        sigma=gaussian.covariance,
    )
    reference = read_reference(tmp_path / "theirs.npz", 6, "f" * 16)
    digest = hashlib.sha256((tmp_path / "theirs.npz").read_bytes())
    expected = f"theirs.npz, SHA-256 {digest.hexdigest()[:16]}"
    assert reference.name == expected and reference.features.count == 0
    assert reference.features.gaussian.mean.dtype == np.float64
    one = dataclasses.replace(evaluator(metrics="fid"), reference=reference)
    expected = evaluator(metrics="fid").score(make_generator())["metrics"]
    score = one.score(make_generator())["metrics"]
    assert score["fid"] == pytest.approx(expected["fid"], rel=1e-5)


SOUND = {"mu": np.zeros(6), "sigma": np.eye(6)}


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"mu": np.zeros(6)}, "has no sigma: statistics are.*it has mu"),
        ({}, "has no mu: .*it has none"),
        (
            {"mu": np.zeros(2048), "sigma": np.eye(2048)},
            r"of another feature network: .*\(2048,\).*features at hand are 6",
        ),
        ({"mu": np.full(6, np.nan), "sigma": np.eye(6)}, "mu not finite"),
        ({"mu": np.full(6, 1j), "sigma": np.eye(6)}, "mu not finite"),
        ({"mu": np.full(6, "a"), "sigma": np.eye(6)}, "mu not finite"),
        ({"mu": np.zeros(6), "sigma": np.tri(6)}, "is not symmetric"),
        ({"mu": np.zeros(6), "sigma": -np.eye(6)}, "no covariance: .* is -1"),
        ({"mu": np.zeros(6), "sigma": 1e300 * np.eye(6)}, "up to 1e.300"),
        (SOUND | {"rows": np.zeros((9, 5))}, "not 6 finite numbers"),
        (SOUND | {"count": np.int64(-3)}, "count of .* is below 0"),
        (SOUND | {"count": np.array("many")}, "is not an .npz file of stat"),
        (SOUND | {"name": np.array("{")}, "is not an .npz file of statistics"),
    ],
)
def test_wrong_statistics_are_one_sentence(arrays, sentence, tmp_path):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ReferenceError, match=sentence):
        read_reference(tmp_path / "wrong.npz", 6, "f" * 16)


def test_files_that_are_no_statistics_are_one_sentence(tmp_path):
    path = tmp_path / "file.npz"
    with pytest.raises(ReferenceError, match=f"there is no file {path}"):
        read_reference(path, 6, "f" * 16)
    path.write_text("not an archive")
    with pytest.raises(ReferenceError, match="is not an .npz file"):
        read_reference(path, 6, "f" * 16)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ReferenceError, match="is not an .npz file"):
        read_reference(path, 6, "f" * 16)
