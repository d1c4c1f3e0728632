"""Feature networks: the digits' own classifier, SavedModels, Inception."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from transgan_tf import caching
from transgan_tf.metrics import classifier
from transgan_tf.metrics import features
from transgan_tf.metrics.features import FeatureError
from transgan_tf.metrics.features import load_features
from transgan_tf.randomness import Draws
from transgan_tf.randomness import root_seed

pytestmark = pytest.mark.usefixtures("freed_graphs")

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 13, 13, 3), "uint8")


class Network(tf.Module):
    """Channel means, and half of them as logits; counts in its weights."""

    def __init__(self, size=None, names=("pool_3", "logits"), factor=2.0):
        super().__init__()
        self.factor = tf.Variable(factor)
        self.names = names
        spec = tf.TensorSpec((None, size, size, 3), tf.float32)
        self.call = tf.function(self.body, input_signature=[spec])

    def body(self, images):
        means = tf.reduce_mean(images, axis=(1, 2)) * self.factor
        # With axes that are to be flattened, as TF-GAN's Inception has.
        outputs = (means[:, None, None], means[:, :2])
        return dict(zip(self.names, outputs, strict=False))


def save(folder, network, signed=True):
    network.__call__ = network.call
    signatures = {"serving_default": network.call} if signed else None
    tf.saved_model.save(network, str(folder), signatures=signatures)
    return str(folder)


# === SavedModels ===


def test_a_saved_model_gives_features_and_logits(tmp_path):
    network = load_features(save(tmp_path / "net", Network()))
    assert (network.width, network.classes) == (3, 2)
    assert (network.image_size, network.channels) == (None, 3)
    assert network.resize == "none"
    pooled, logits = network(IMAGES)
    expected = 2 * (IMAGES / 127.5 - 1).mean(axis=(1, 2))
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, expected[:, :2], rtol=1e-5, atol=1e-6)


def test_images_come_to_the_size_and_colour_of_the_network(tmp_path):
    network = load_features(save(tmp_path / "net", Network(size=26)))
    assert network.image_size == 26
    assert network.resize.startswith("bilinear to 26 px")
    grey = np.full((2, 13, 13, 1), 255, "uint8")
    pooled, _ = network(grey)
    np.testing.assert_allclose(pooled, np.full((2, 3), 2.0), rtol=1e-6)


def test_a_network_without_logits_has_no_classes(tmp_path):
    network = load_features(save(tmp_path / "net", Network(names=["pool_3"])))
    assert network.classes == 0
    assert network(IMAGES)[1].shape == (3, 0)


def test_the_fingerprint_tells_weights_apart(tmp_path):
    names = []
    for number, factor in enumerate((2.0, 2.0, 3.0)):
        folder = save(tmp_path / str(number), Network(factor=factor))
        names.append(load_features(folder).fingerprint)
    assert len(names[0]) == 16
    assert names[2] != names[0]
    (tmp_path / "0" / "assets" / "readme.txt").write_text("not a weight")
    again = load_features(str(tmp_path / "0"))
    assert again.fingerprint == names[0]


def broken_model(folder):
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no graph")
    return str(folder)


def save_without_call(folder):
    tf.saved_model.save(tf.Module(), str(folder))
    return str(folder)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: str(folder), "is not a SavedModel: features are"),
        (broken_model, "cannot be loaded"),
        (
            lambda folder: save(folder, Network(names=["embedding"])),
            "must return 'pool_3'.*by name: it returns embedding",
        ),
        (
            save_without_call,
            "neither a serving_default signature nor a call",
        ),
    ],
)
def test_what_is_no_feature_network_is_told(make, sentence, tmp_path):
    with pytest.raises(FeatureError, match=sentence):
        load_features(make(tmp_path / "net"))


# === Inception ===


def save_inception(folder):
    """Writes InceptionV3's architecture with TF-GAN's outputs, weights drawn.

    Returns:
        The Keras model.
    """
    keras.utils.set_random_seed(0)
    base = keras.applications.InceptionV3(weights=None, pooling="avg")
    pooled = base.get_layer("avg_pool").output
    outputs = {"pool_3": pooled, "logits": base.output}
    archive = keras.export.ExportArchive()
    model = keras.Model(base.input, outputs)
    archive.track(model)
    archive.add_endpoint(
        "serving_default",
        lambda images: model(images, training=False),
        [tf.TensorSpec((None, 299, 299, 3), tf.float32)],
    )
    archive.write_out(str(folder), verbose=False)
    return model


@pytest.mark.slow
def test_inception_is_taken_from_a_folder(tmp_path):
    model = save_inception(tmp_path / "net")
    network = load_features(str(tmp_path / "net"))
    assert (network.width, network.classes) == (2048, 1000)
    assert (network.image_size, network.channels) == (299, 3)
    pooled, logits = network(IMAGES)
    images = tf.image.resize(IMAGES / np.float32(127.5) - 1, (299, 299))
    expected = model(images, training=False)
    for ours, theirs in ((pooled, "pool_3"), (logits, "logits")):
        scale = np.abs(expected[theirs]).max()
        np.testing.assert_allclose(ours, expected[theirs], atol=1e-5 * scale)


def test_inception_is_taken_from_the_cache(empty_cache):
    folder = save(empty_cache / "inception", Network(), signed=False)
    network = load_features("inception")
    assert network.name == "inception"
    # Where the network does not say its size, it is TF-GAN's.
    assert (network.image_size, network.width) == (299, 3)
    assert network.fingerprint == load_features(folder).fingerprint


def test_inception_from_a_folder_is_inception(tmp_path, empty_cache):
    folder = save(tmp_path / "elsewhere", Network(), signed=False)
    network = load_features("inception", inception=Path(folder))
    assert (network.name, network.image_size) == ("inception", 299)


def test_training_never_downloads_inception(empty_cache, monkeypatch):
    def refuse(*_):
        raise AssertionError("it downloads")

    monkeypatch.setattr("tensorflow_hub.resolve", refuse)
    with pytest.raises(FeatureError, match="training does not download: start"):
        load_features("inception")


def test_without_a_network_inception_is_one_sentence(empty_cache, monkeypatch):
    def no_network(handle):
        raise OSError(f"<urlopen error> of {handle}\nand more lines")

    monkeypatch.setattr("tensorflow_hub.resolve", no_network)
    with pytest.raises(FeatureError) as error:
        load_features("inception", download=True)
    assert "cannot be downloaded (<urlopen error> of https" in str(error.value)
    assert f"put its folder at {empty_cache}/inception" in str(error.value)
    assert "\n" not in str(error.value)


def test_inception_is_downloaded_once(tmp_path, empty_cache, monkeypatch):
    folder = save(tmp_path / "downloaded", Network())
    handles = []

    def download(handle):
        handles.append(handle)
        return folder

    monkeypatch.setattr("tensorflow_hub.resolve", download)
    first = load_features("inception", download=True)
    second = load_features("inception", download=False)
    assert first.fingerprint == second.fingerprint
    assert handles == ["https://tfhub.dev/tensorflow/tfgan/eval/inception/1"]


# === The classifier of digits ===


@pytest.fixture(scope="module")
def digits_network():
    return load_features("classifier")


def test_the_classifier_knows_digits_that_it_never_saw(digits_network):
    (trained, _), (images, classes) = classifier.split_digits()
    assert len(trained) == 4000
    assert np.bincount(classes).tolist() == [100] * 10
    share = classifier.accuracy(digits_network.function, images, classes)
    assert share >= 0.975
    assert (digits_network.width, digits_network.classes) == (64, 10)


def test_the_classifier_is_trained_once(digits_network, monkeypatch):
    def refuse():
        raise AssertionError("it trains again")

    monkeypatch.setattr(classifier, "_train", refuse)
    again = load_features("classifier")
    assert again.fingerprint == digits_network.fingerprint


TRAIN = """
import tensorflow as tf
from transgan_tf.metrics.features import load_features
tf.config.experimental.enable_op_determinism()
print(load_features("classifier").fingerprint)
"""


@pytest.mark.slow
def test_the_classifier_is_the_same_wherever_it_is_trained(tmp_path):
    names = set()
    for number in range(2):
        cache = {"XDG_CACHE_HOME": str(tmp_path / str(number))}
        result = subprocess.run(
            [sys.executable, "-c", TRAIN],
            env=os.environ | cache,
            capture_output=True,
            text=True,
            check=True,
        )
        names.add(result.stdout)
    assert len(names) == 1


def test_digits_are_shifted_by_up_to_two_pixels():
    image = np.full((1, 28, 28, 1), -1.0, "float32")
    image[0, 14, 14] = 1.0
    images = np.repeat(image, 200, axis=0)
    shifted = classifier._shifted(images, Draws(root_seed(3), 200)).numpy()
    rows, columns = np.nonzero(shifted[..., 0] == 1.0)[1:]
    assert set(rows) == set(columns) == set(range(12, 17))


# === The cache ===


def test_arrays_are_made_once_and_again_where_damaged(empty_cache, caplog):
    made = []

    def make():
        made.append(1)
        return {"a": np.arange(3), "b": np.float64(2.5)}

    for _ in range(2):
        arrays = caching.cached_arrays("kind", {"key": 1}, make)
        assert arrays["a"].tolist() == [0, 1, 2] and arrays["b"] == 2.5
    assert len(made) == 1
    caching.cached_arrays("kind", {"key": 2}, make)
    assert len(made) == 2
    for path in empty_cache.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    caching.cached_arrays("kind", {"key": 1}, make)
    assert len(made) == 3
    assert "is damaged" in caplog.text


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    arrays = caching.cached_arrays("kind", {}, lambda: {"a": np.arange(2)})
    assert arrays["a"].tolist() == [0, 1]
    assert "cannot be kept" in caplog.text


def test_the_cache_is_below_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caching.cache_folder() == tmp_path / ".cache" / "transgan_tf"
    assert features.inception_folder().parent == caching.cache_folder()
