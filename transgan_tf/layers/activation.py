"""GELU with its derivatives in closed form.

Differentiated as written, each of its operations keeps a tensor for its own
gradient, and the second derivative that the gradient penalty takes keeps
several times as many: of the largest tensors there are, the hidden ones of the
MLPs. Here the input is all that is kept for the gradient.

With the standard normal distribution's density p and cumulative P,
gelu(x) = x P(x), gelu'(x) = P(x) + x p(x), gelu''(x) = p(x) (2 - x^2).
"""

import math

import tensorflow as tf


@tf.custom_gradient
def gelu(x):
    """Gaussian error linear unit, by the error function.

    Args:
        x: tensor of a floating-point type.

    Returns:
        Tensor of its shape and type; it can be differentiated twice.

    Reference:
        Hendrycks and Gimpel 2016 (https://arxiv.org/abs/1606.08415).
    """

    def gradient(upstream):
        return upstream * _slope(x)

    return x * _cumulative(x), gradient


@tf.custom_gradient
def _slope(x):
    def gradient(upstream):
        # Not by 2 - x^2, which float16 cannot hold where the density is 0.
        density = _density(x)
        return upstream * (2.0 * density - x * (x * density))

    return _cumulative(x) + x * _density(x), gradient


def _cumulative(x):
    # By the complement, whose small values in the left tail are exact.
    return 0.5 * tf.math.erfc(-math.sqrt(0.5) * x)


def _density(x):
    return math.sqrt(0.5 / math.pi) * tf.exp(-0.5 * tf.square(x))
