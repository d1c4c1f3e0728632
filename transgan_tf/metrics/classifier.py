"""A small classifier of digits, trained here, whose features score digits.

It makes scores possible without downloading anything. They compare runs on
digits with each other, and with nothing else.
"""

import hashlib
import logging
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from transgan_tf.caching import cached_arrays
from transgan_tf.checked import UserError
from transgan_tf.images import embedded_digits
from transgan_tf.randomness import Draws
from transgan_tf.randomness import root_seed
from transgan_tf.records import to_unit_range

IMAGE_SIZE, CLASSES, WIDTH = 28, 10, 64
# Every fifth digit is held out: 100 of each class.
HELD_OUT = 5
EPOCHS, BATCH_SIZE, LARGEST_SHIFT = 16, 50, 2
LEARNING_RATE = 2e-3
LEAST_ACCURACY = 0.975

_log = logging.getLogger(__name__)


def trained_weights() -> list[np.ndarray]:
    """Returns the trained weights, from the cache or after training.

    Training takes about half a minute on two cores and is deterministic on one
    machine under `tf.config.experimental.enable_op_determinism`.
    """
    weights = cached_arrays("classifier", _recipe(), _train)
    return [weights[name] for name in sorted(weights)]


def make_classifier() -> keras.Model:
    """Builds the network with initial weights drawn from a fixed seed.

    It maps images `(B, 28, 28, 1)` in [-1, 1] to `pool_3`, its `(B, 64)`
    features, and `logits` `(B, 10)`.
    """
    layers = keras.layers
    seeds = keras.random.SeedGenerator(0)

    def convolution(filters, x):
        start = keras.initializers.HeNormal(seed=int(seeds.next()[1]))
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer=start)(
            x
        )
        return layers.MaxPooling2D()(layers.ReLU()(x))

    images = x = layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1))
    for filters in (16, 32, 64):
        x = convolution(filters, x)
    start = keras.initializers.GlorotUniform(seed=0)
    x = layers.Dense(WIDTH, kernel_initializer=start)(layers.Flatten()(x))
    features = layers.ReLU()(x)
    start = keras.initializers.GlorotUniform(seed=1)
    logits = layers.Dense(CLASSES, kernel_initializer=start)(features)
    outputs = {"pool_3": features, "logits": logits}
    return keras.Model(images, outputs, name="digit_classifier")


def split_digits():
    """Returns digits in [-1, 1] and classes: the trained, then the held out."""
    pixels, classes = embedded_digits()
    images = to_unit_range(pixels)
    held_out = np.arange(len(images)) % HELD_OUT == HELD_OUT - 1
    return (
        (images[~held_out], classes[~held_out]),
        (images[held_out], classes[held_out]),
    )


def accuracy(classifier: keras.Model, images, classes) -> float:
    """Returns the share of images whose class is the likeliest."""
    logits = classifier.predict(images, batch_size=250, verbose=0)["logits"]
    return float(np.mean(logits.argmax(axis=1) == classes))


def _train():
    """Trains from nothing; returns the weights by number."""
    _log.info("training the classifier of digits, once")
    classifier = make_classifier()
    (images, classes), held_out = split_digits()
    steps = EPOCHS * len(images) // BATCH_SIZE
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(classifier.trainable_variables)
    step = tf.function(_make_step(classifier, optimizer), autograph=False)
    rng = np.random.default_rng(0)
    number = 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(images)).reshape(-1, BATCH_SIZE)
        for rows in order:
            step(images[rows], classes[rows], tf.constant(number, tf.int64))
            number += 1
    share = accuracy(classifier, *held_out)
    _log.info("it knows %.1f %% of the digits held out", 100 * share)
    if share < LEAST_ACCURACY:
        raise UserError(
            f"the classifier of digits knows {share:.1%} of those held out, "
            f"less than {LEAST_ACCURACY:.1%}: its scores would say little; "
            "tell us of this machine"
        )
    weights = classifier.get_weights()
    return {f"{n:02d}": array for n, array in enumerate(weights)}


def _make_step(classifier, optimizer):
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(images, classes, number):
        draws = Draws(root_seed(number), BATCH_SIZE)
        with tf.GradientTape() as tape:
            logits = classifier(_shifted(images, draws))["logits"]
            loss = loss_of(classes, logits)
        weights = classifier.trainable_variables
        gradients = tape.gradient(loss, [w.value for w in weights])
        optimizer.apply(gradients, weights)

    return step


def _shifted(images, draws):
    """Moves each image by up to two pixels along each axis, black coming in."""
    border = LARGEST_SHIFT
    pad = [[0, 0], [border, border], [border, border], [0, 0]]
    padded = tf.pad(images, pad, constant_values=-1.0)
    span = 2 * border + 1
    offsets = [draws.fold_in(n).integers(0, span) for n in range(2)]
    return tf.map_fn(
        lambda row: tf.slice(
            row[0], [row[1], row[2], 0], [IMAGE_SIZE, IMAGE_SIZE, 1]
        ),
        (padded, *offsets),
        fn_output_signature=tf.TensorSpec([IMAGE_SIZE, IMAGE_SIZE, 1]),
    )


def _recipe():
    """What the weights follow from, for the cache to tell them apart."""
    return {
        "code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
