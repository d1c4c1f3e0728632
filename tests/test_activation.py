"""GELU by hand: its values and both derivatives, also under the tape's own."""

import math

import numpy as np
import pytest
import tensorflow as tf

from transgan_tf.layers.activation import gelu

POINTS = np.linspace(-9.0, 9.0, 15 * 7).reshape(15, 7)


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def cumulative(x):
    return math.erfc(-x / math.sqrt(2)) / 2


VALUES = np.vectorize(lambda x: x * cumulative(x))(POINTS)
SLOPES = np.vectorize(lambda x: cumulative(x) + x * density(x))(POINTS)
CURVATURES = np.vectorize(lambda x: density(x) * (2 - x * x))(POINTS)


def derivatives(x):
    """Values, first and second derivatives at the points of a tensor."""
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = gelu(x)
        slope = inner.gradient(y, x)
    return y, slope, outer.gradient(slope, x)


@pytest.mark.parametrize("jit", [False, True])
def test_values_and_derivatives_are_those_by_hand(jit):
    function = tf.function(derivatives, jit_compile=jit, autograph=False)
    results = function(tf.constant(POINTS))
    for result, expected in zip(
        results, (VALUES, SLOPES, CURVATURES), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-300)


def test_slopes_are_differences():
    step = 1e-5
    ahead, _, _ = derivatives(tf.constant(POINTS + step))
    behind, _, _ = derivatives(tf.constant(POINTS - step))
    differences = (ahead - behind) / (2 * step)
    _, slopes, _ = derivatives(tf.constant(POINTS))
    np.testing.assert_allclose(slopes, differences, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_far_away_it_is_straight(dtype):
    """Also where the square is beyond float16."""
    points = tf.constant([-60_000.0, -300.0, -17.0, 17.0, 300.0], dtype)
    for result, expected in zip(
        derivatives(points),
        ([0.0, 0.0, 0.0, 17.0, 300.0], [0, 0, 0, 1, 1], [0] * 5),
        strict=True,
    ):
        np.testing.assert_array_equal(tf.cast(result, "float32"), expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 2e-6), ("bfloat16", 4e-2)]
)
def test_it_keeps_its_type(dtype, tolerance):
    results = derivatives(tf.constant(POINTS, dtype))
    for result, expected in zip(
        results, (VALUES, SLOPES, CURVATURES), strict=True
    ):
        assert result.dtype == dtype
        np.testing.assert_allclose(
            tf.cast(result, "float64"), expected, atol=tolerance, rtol=tolerance
        )


def test_the_upstream_of_each_derivative_gets_its_own():
    """d/du of u * gelu'(x) is gelu'(x): a mixed derivative of the penalty."""
    x, upstream = tf.constant(POINTS), tf.constant(POINTS[::-1] + 0.5)
    with tf.GradientTape() as outer:
        outer.watch([x, upstream])
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = gelu(x)
        slope = inner.gradient(y, x, upstream)
    by_x, by_upstream = outer.gradient(slope, [x, upstream])
    np.testing.assert_allclose(by_upstream, SLOPES, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(
        by_x, upstream * CURVATURES, rtol=1e-12, atol=1e-300
    )
