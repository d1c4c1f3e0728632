"""The moving average: its decay and its update, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from transgan_tf.ema import ema_decay
from transgan_tf.ema import update_average


def decay(seen, batch=64, images=500_000, warmup=0.1, fixed=None):
    return float(ema_decay(seen, batch, images, warmup, fixed))


def test_the_half_life():
    # After as many images as the half-life, half of a weight remains.
    assert decay(5_000_000) ** (500_000 / 64) == pytest.approx(0.5, rel=1e-3)
    assert decay(6_000_000) == decay(5_000_000) > decay(4_000_000)
    # At half a decay a step: 64 images, half-life 64.
    assert decay(640) == pytest.approx(0.5)
    assert decay(1280) == pytest.approx(0.5**0.5)
    assert decay(1280, warmup=0.05) == pytest.approx(0.5)
    assert decay(10**6, batch=7, images=7) == pytest.approx(0.5)
    assert decay(10**6, batch=7, images=21) == pytest.approx(0.5 ** (1 / 3))


def test_before_any_image_the_average_is_the_weights():
    assert decay(0) == 0.0


def test_a_fixed_decay_replaces_it():
    assert decay(0, fixed=0.75) == 0.75
    assert decay(10**9, fixed=0.75) == 0.75


def test_images_seen_may_be_a_step_counter():
    seen = tf.constant(2**40, tf.int64)
    assert decay(seen) == decay(10**9)


def test_update_moves_each_average():
    averages = [keras.Variable([[4.0, 8.0]]), keras.Variable(1.0)]
    variables = [keras.Variable([[0.0, 4.0]]), keras.Variable(2.0)]

    def move(decay):
        update_average(averages, variables, decay)

    for once in (move, tf.function(move)):
        averages[0].assign([[4.0, 8.0]])
        averages[1].assign(1.0)
        once(tf.constant(0.75))
        assert averages[0].numpy().tolist() == [[3.0, 7.0]]
        assert averages[1].numpy() == 1.25
        once(tf.constant(0.0))
        assert averages[0].numpy().tolist() == [[0.0, 4.0]]
        once(tf.constant(1.0))
        assert averages[0].numpy().tolist() == [[0.0, 4.0]]
    assert [v.numpy().tolist() for v in variables] == [[[0.0, 4.0]], 2.0]


def test_update_wants_pairs():
    with pytest.raises(ValueError, match="shorter|longer"):
        update_average([keras.Variable(np.ones(2))], [], 0.5)
