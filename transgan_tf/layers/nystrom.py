"""Nyström self-attention: all tokens by way of a few landmarks."""

import keras
from keras import ops

from transgan_tf.layers.attention import SelfAttention
from transgan_tf.network_configs import NYSTROM_ITERATIONS


def pseudo_inverse(matrix, iterations: int):
    """Approximates the Moore-Penrose inverse by matrix products alone.

    Args:
        matrix: `(..., m, m)`, float32.
        iterations: of the third order method.

    Returns:
        `(..., m, m)`.

    Reference:
        Nyströmformer (https://arxiv.org/abs/2102.03902), the iterative
        approximation of the pseudo-inverse.
    """
    size = ops.abs(matrix)
    # The norms of the largest column and of the largest row.
    column = ops.max(ops.sum(size, axis=-2), axis=-1)  # (...)
    row = ops.max(ops.sum(size, axis=-1), axis=-1)
    inverse = ops.swapaxes(matrix, -1, -2) / (column * row)[..., None, None]
    one = ops.eye(matrix.shape[-1], dtype=matrix.dtype)
    for _ in range(iterations):
        product = ops.matmul(matrix, inverse)
        inner = 15.0 * one - ops.matmul(product, 7.0 * one - product)
        inner = 13.0 * one - ops.matmul(product, inner)
        inverse = 0.25 * ops.matmul(inverse, inner)
    return inverse


@keras.saving.register_keras_serializable(package="transgan_tf")
class NystromSelfAttention(SelfAttention):
    """Self-attention whose scores pass through landmarks.

    Landmarks are the means of segments of N/m tokens in row-major order, of
    queries Q' and of keys K'. Standard attention's weights are approximated by
    softmax(Q K'^T) pinv(softmax(Q' K'^T)) softmax(Q' K^T), so that memory grows
    with N * m instead of N**2. With as many landmarks as tokens it is standard
    attention, as far as the pseudo-inverse has converged.

    The softmaxes and the pseudo-inverse are in float32 under every dtype
    policy. Landmarks have no place on the map, and so there are no relative
    positions. Nyströmformer's convolution beside the attention is left out,
    as TransGAN has none.

    Args:
        heads: int. Number of heads, h; divides the width D.
        landmarks: int. Number of landmarks, m; divides the number of tokens.
        iterations: int. Of the pseudo-inverse; Nyströmformer's 6.
        initialization: string. See `transgan_tf.layers.initializers.dense`.

    Call arguments:
        x: tokens `(B, N, D)`.

    Returns:
        Tokens `(B, N, D)`.

    Reference:
        Nyströmformer (https://arxiv.org/abs/2102.03902).
    """

    def __init__(
        self,
        heads,
        landmarks,
        iterations=NYSTROM_ITERATIONS,
        initialization="fan_in_uniform",
        **kwargs,
    ):
        super().__init__(heads, initialization, **kwargs)
        # === Config ===
        self.landmarks = landmarks
        self.iterations = iterations

    def build(self, input_shape):
        tokens = input_shape[1]
        if tokens % self.landmarks:
            raise ValueError(
                f"landmarks must divide the {tokens} tokens, got "
                f"{self.landmarks}"
            )
        super().build(input_shape)

    def attend(self, query, key, value):
        queries, keys = self._means(query), self._means(key)  # (B, h, m, D/h)
        to_landmarks = _kernel(query, keys)  # (B, h, N, m)
        among = _kernel(queries, keys)  # (B, h, m, m)
        from_landmarks = _kernel(queries, key)  # (B, h, m, N)
        weights = ops.cast(from_landmarks, value.dtype)
        x = ops.cast(ops.matmul(weights, value), "float32")
        x = ops.matmul(pseudo_inverse(among, self.iterations), x)
        weights = ops.cast(to_landmarks, value.dtype)
        return ops.matmul(weights, ops.cast(x, value.dtype))  # (B, h, N, D/h)

    def _means(self, x):
        """Returns the landmarks `(B, h, m, D/h)` of `(B, h, N, D/h)`."""
        _, heads, tokens, head_dim = x.shape
        segment = tokens // self.landmarks
        shape = (-1, heads, self.landmarks, segment, head_dim)
        means = ops.mean(ops.cast(ops.reshape(x, shape), "float32"), axis=3)
        return ops.cast(means, x.dtype)

    def get_config(self):
        config = super().get_config()
        config.update(
            {"landmarks": self.landmarks, "iterations": self.iterations}
        )
        return config


def _kernel(query, key):
    """Returns the float32 softmax of the scores of queries and keys."""
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    return ops.softmax(ops.cast(scores, "float32"), axis=-1)
