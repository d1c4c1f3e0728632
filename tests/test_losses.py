"""Losses and penalties, by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from transgan_tf import configs
from transgan_tf import network_configs
from transgan_tf.augment import OPERATIONS
from transgan_tf.checked import ConfigError
from transgan_tf.layers.norm import make_norm
from transgan_tf.layers.reshape import UPSAMPLERS
from transgan_tf.losses import ADVERSARIAL_LOSSES
from transgan_tf.losses import AdversarialLoss
from transgan_tf.losses import drift
from transgan_tf.losses import get_loss
from transgan_tf.losses import interpolated_penalty
from transgan_tf.losses import real_penalty

REAL = tf.constant([[2.0], [-0.5], [0.25]])
FAKE = tf.constant([[-3.0], [0.5], [1.0]])


def softplus(x):
    return math.log1p(math.exp(x))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_configurations_know_the_names_of_all_registries():
    assert set(configs.LOSSES) == set(ADVERSARIAL_LOSSES)
    assert set(configs.AUGMENTATIONS) == set(OPERATIONS)
    assert set(network_configs.UPSAMPLES) == set(UPSAMPLERS)
    for norm in network_configs.NORMS:
        make_norm(norm)


def test_wgan_gp():
    loss = get_loss("wgan_gp")
    # -1.75 / 3 - 1.5 / 3
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(-3.25 / 3)
    assert float(loss.generator(FAKE)) == pytest.approx(0.5)
    assert loss.penalty is interpolated_penalty and loss.has_drift


def test_hinge():
    loss = get_loss("hinge")
    # real: 0, 1.5, 0.75; fake: 0, 1.5, 2
    expected = 2.25 / 3 + 3.5 / 3
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx(expected)
    assert float(loss.generator(FAKE)) == pytest.approx(0.5)
    assert loss.penalty is None and not loss.has_drift


def test_non_saturating():
    loss = get_loss("non_saturating_r1")
    real = mean(softplus(-x) for x in (2.0, -0.5, 0.25))
    fake = mean(softplus(x) for x in (-3.0, 0.5, 1.0))
    value = float(loss.discriminator(REAL, FAKE))
    assert value == pytest.approx(real + fake, rel=1e-5)
    generator = mean(softplus(-x) for x in (-3.0, 0.5, 1.0))
    assert float(loss.generator(FAKE)) == pytest.approx(generator, rel=1e-5)
    assert loss.penalty is real_penalty and not loss.has_drift


def test_registry():
    assert set(ADVERSARIAL_LOSSES) == {"wgan_gp", "hinge", "non_saturating_r1"}
    mine = AdversarialLoss(lambda real, fake: 0.0, lambda fake: 0.0)
    assert get_loss(mine) is mine
    with pytest.raises(ConfigError, match="got 'hing'; did you mean 'hinge'"):
        get_loss("hing")


# === Penalties ===


def images(*values):
    """Returns images of 1 x 2 pixels and one channel."""
    return tf.reshape(tf.constant(values), (-1, 1, 2, 1))


def squared(x):
    """A judge whose gradient at x is x."""
    return tf.reduce_sum(x**2, axis=(1, 2, 3))[:, None] / 2


def test_interpolated_penalty_by_hand():
    real, fake = images([3.0, 4.0], [0.0, 2.0]), images([9.0, 0.0], [4.0, 0.0])
    # The share is the real image's: the points are (3, 4) and (3, 0.5).
    mix = tf.reshape(tf.constant([1.0, 0.25]), (2, 1, 1, 1))
    norm = math.hypot(3.0, 0.5)
    expected = (16 + (norm - 1) ** 2) / 2
    value = interpolated_penalty(squared, real, fake, mix)
    assert float(value) == pytest.approx(expected)


def test_interpolated_penalty_can_be_differentiated():
    x, mix = images([3.0, 4.0]), tf.ones((1, 1, 1, 1))
    scale = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        value = interpolated_penalty(
            lambda x: scale * squared(x), x, tf.zeros_like(x), mix
        )
    # (5 s - 1)**2, whose slope is 10 (5 s - 1).
    assert float(value) == pytest.approx(81.0)
    assert float(tape.gradient(value, scale)) == pytest.approx(90.0)


@pytest.mark.parametrize("jit", [False, True])
def test_interpolated_penalty_at_zero_gradient(jit):
    # The first image's gradient is 0, the second's (3, 4).
    x = images([0.0, 0.0], [3.0, 4.0])
    scale = tf.Variable(2.0)

    @tf.function(jit_compile=jit)
    def value_and_slope():
        with tf.GradientTape() as tape:
            value = interpolated_penalty(
                lambda x: scale * squared(x), x, x, tf.ones((2, 1, 1, 1))
            )
        return value, tape.gradient(value, scale)

    value, slope = value_and_slope()
    assert float(value) == pytest.approx((1 + 81) / 2)
    assert float(slope) == pytest.approx(45.0)


def test_real_penalty_by_hand():
    real = images([3.0, 4.0], [1.0, 1.0])
    scale = tf.Variable(2.0)
    with tf.GradientTape() as tape:
        value = real_penalty(lambda x: scale * squared(x), real, None, None)
    # s**2 * (25 + 2) / 2 / 2
    assert float(value) == pytest.approx(27.0)
    assert float(tape.gradient(value, scale)) == pytest.approx(27.0)


# === Drift ===


def test_drift_is_the_squared_mean():
    with tf.GradientTape() as tape:
        tape.watch(REAL)
        value = drift(REAL)
    mean = 1.75 / 3
    assert float(value) == pytest.approx(mean**2)
    slope = tape.gradient(value, REAL).numpy()
    np.testing.assert_allclose(slope, np.full((3, 1), 2 * mean / 3), rtol=1e-6)


def test_drift_of_parts_has_the_whole_batchs_gradient():
    rng = np.random.default_rng(0)
    logits = tf.constant(rng.standard_normal((6, 1)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        whole = drift(logits)
    expected = tape.gradient(whole, logits)
    global_mean = tf.reduce_mean(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        parts = [drift(part, global_mean) for part in tf.split(logits, 3)]
        value = tf.add_n(parts) / 3
    np.testing.assert_allclose(tape.gradient(value, logits), expected, 1e-5)
    assert float(value) == pytest.approx(float(whole), rel=1e-5)
    # The parts' own squares would have another.
    own = tf.add_n([drift(part) for part in tf.split(logits, 3)]) / 3
    assert abs(float(own) - float(whole)) > 0.01
