"""float16: losses are scaled, and what would overflow is float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.test_gan import real_images
from tests.tiny import smallest_config
from transgan_tf import loss_scale
from transgan_tf.checkpoints import state
from transgan_tf.gan import make_gan
from transgan_tf.layers import TokenPooling
from transgan_tf.layers import TransformerBlock
from transgan_tf.layers.attention import MultiHeadAttention
from transgan_tf.layers.norm import make_norm
from transgan_tf.loss_scale import LossScale
from transgan_tf.loss_scale import enlarge
from transgan_tf.loss_scale import shrink
from transgan_tf.losses import interpolated_penalty
from transgan_tf.losses import real_penalty

# === The scale ===


def make_scale():
    def add_weight(name, dtype, initializer):
        return keras.Variable(initializer, (), dtype, name=name)

    return LossScale(add_weight, "tiny")


def test_it_halves_at_once_and_doubles_after_many():
    scale = make_scale()
    assert float(scale.scale) == 2.0**15
    assert scale.settle(tf.constant(False))
    assert float(scale.scale) == 2.0**14
    scale.good_updates.assign(loss_scale.PATIENCE - 2)
    assert scale.settle(tf.constant(True))
    assert float(scale.scale) == 2.0**14
    assert scale.settle(tf.constant(True))
    assert float(scale.scale) == 2.0**15
    assert int(scale.good_updates) == 0
    # A bad one begins the count again.
    scale.good_updates.assign(loss_scale.PATIENCE - 1)
    scale.settle(tf.constant(False))
    assert int(scale.good_updates) == 0


def test_at_its_ends_it_stays():
    scale = make_scale()
    scale.scale.assign(loss_scale.MOST)
    scale.good_updates.assign(loss_scale.PATIENCE - 1)
    scale.settle(tf.constant(True))
    assert float(scale.scale) == loss_scale.MOST
    scale.scale.assign(loss_scale.LEAST)
    # No scale is to blame for this one.
    assert not scale.settle(tf.constant(False))
    assert float(scale.scale) == loss_scale.LEAST


# === What it is for ===


def dim(x):
    """1e-8 * x**2, through a gradient of 2e-8 * x in float16."""
    half = tf.cast(x, "float16") ** 2 * tf.constant(1e-4, "float16")
    return tf.cast(half, "float32") * 1e-4


def test_a_gradient_that_would_underflow():
    x = tf.constant([1.0])
    found = []
    for scale in (None, tf.constant(2.0**15)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = enlarge(tf.reduce_sum(dim(x)), scale)
        found.append(float(shrink(tape.gradient(loss, [x]), scale)[0][0]))
    assert found[0] == 0.0
    assert found[1] == pytest.approx(2e-8, rel=1e-2)


def test_the_gradient_within_a_penalty():
    def judge(images):
        return tf.reduce_sum(dim(images), axis=(1, 2, 3))

    image, scale = tf.ones((1, 1, 1, 1)), tf.constant(2.0**15)
    assert float(real_penalty(judge, image, None, None)) == 0.0
    found = float(real_penalty(judge, image, None, None, scale))
    assert found == pytest.approx(0.5 * 2e-8**2, rel=1e-2)


@pytest.mark.parametrize("penalty", [interpolated_penalty, real_penalty])
def test_in_float32_it_changes_no_penalty(penalty):
    weight, found = tf.constant(0.7), []
    image = tf.constant([[[[1.5, 0.4]]]])
    for scale in (None, tf.constant(8.0)):
        with tf.GradientTape() as tape:
            tape.watch([weight, image])
            value = penalty(
                lambda images: tf.reduce_sum(weight * images**3, (1, 2, 3)),
                *(image, image, 0.5, scale),
            )
        slopes = tape.gradient(value, [weight, image])
        found.append(np.array([value, slopes[0], *slopes[1][0, 0, 0]]))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0].all()


# === What stays float32 ===


@pytest.mark.parametrize("kind", ["layer_norm", "token_scaling"])
def test_norms_of_large_numbers(kind):
    norm = make_norm(kind, dtype="mixed_float16")
    norm.build((None, 2, 4))
    x = tf.constant([[[6e4, -6e4, 3e4, 0.0]] * 2], "float16")
    y = norm(x)
    assert y.dtype == "float16"
    expected = np.array([6, -6, 3, 0]) / np.sqrt(81 / 4)
    if kind == "layer_norm":
        centred = np.array([6, -6, 3, 0]) - 0.75
        expected = centred / centred.std()
    np.testing.assert_allclose(y[0, 0], expected, rtol=2e-3, atol=2e-3)


def test_pooling_of_large_numbers():
    pooling = TokenPooling(2, 2, dtype="mixed_float16")
    pooled = pooling(tf.fill((1, 4, 3), tf.constant(6e4, "float16")))
    assert np.all(pooled == np.float16(6e4))


def test_attention_with_large_scores():
    keras.utils.set_random_seed(0)
    block = TransformerBlock(1, 2, mlp_ratio=2, dtype="mixed_float16")
    block.build((None, 4, 6))
    block.attention.attention.qkv.kernel.assign(
        block.attention.attention.qkv.kernel * 200.0
    )
    x = tf.random.stateless_normal((2, 4, 6), (1, 2))
    # Scores of thousands, whose exponentials only a softmax bears.
    assert np.isfinite(block(x)).all()


def test_the_softmax_is_in_float32(monkeypatch):
    seen, softmax = [], keras.ops.softmax

    def noted(x, axis):
        seen.append(x.dtype)
        return softmax(x, axis=axis)

    monkeypatch.setattr(keras.ops, "softmax", noted)
    # With relative positions, and without, as in the CLS token's block.
    for window in (2, None):
        attention = MultiHeadAttention(1, window, dtype="mixed_float16")
        attention.build((None, 4, 6))
        assert attention(tf.ones((2, 4, 6))).dtype == "float16"
    assert seen == ["float32", "float32"]


# === The training step ===


def small_gan(precision):
    keras.utils.set_random_seed(5)
    recipe = {"n_critic": 1, "augmentation": "color"}
    return make_gan(smallest_config(precision=precision, **recipe))


@pytest.mark.slow
def test_a_step_is_near_float32s():
    real = tf.constant(real_images(4))
    gan = small_gan("float16")
    for scale in gan.loss_scales.values():
        scale.scale.assign(256.0)
    logs = gan.train_step(real)
    expected = small_gan("float32").train_step(real)
    for name, value in logs.items():
        near = pytest.approx(float(expected[name]), rel=0.05, abs=0.05)
        assert float(value) == near, name


def test_a_scale_that_is_too_large_is_no_bad_step():
    gan, real = small_gan("float16"), tf.constant(real_images(4))
    scales = gan.loss_scales
    assert set(scales) == {"generator", "discriminator"}
    for scale in scales.values():
        scale.scale.assign(256.0)
    logs = gan.train_step(real)
    assert all(int(s.good_updates) == 1 for s in scales.values())
    assert float(logs["discriminator_gradient_norm"]) > 0

    trained = gan.generator.get_weights()
    for scale in scales.values():
        scale.scale.assign(2.0**40)
    logs = gan.train_step(real)
    assert all(float(s.scale) == 2.0**39 for s in scales.values())
    assert (int(gan.bad_row), int(gan.skipped_updates)) == (0, 2)
    assert all(np.isfinite(float(value)) for value in logs.values())
    for old, new in zip(trained, gan.generator.get_weights(), strict=True):
        assert (old == new).all()

    # Numbers that no scale mends are.
    gan.train_step(real * float("nan"))
    assert float(scales["discriminator"].scale) == 2.0**38
    scales["discriminator"].scale.assign(1.0)
    gan.train_step(real * float("nan"))
    assert int(gan.bad_row) == 1

    names = {name for name in state(gan) if "loss_scale" in name}
    assert len(names) == 4 and "loss_scales/generator/scale" in names


def test_other_precisions_have_no_scale():
    assert small_gan("bfloat16").loss_scales == {}
