"""Learned positions: absolute embeddings, relative ones, the CLS token."""

import keras
import numpy as np
from keras import ops

from transgan_tf.layers.initializers import embedding_normal


def relative_position_index(window: int, dimensions: int = 2):
    """Returns the `(N, N)` int32 rows of a relative position table.

    On a square of N = w*w tokens row `(dy + w-1) * (2w-1) + (dx + w-1)` with
    dy = query row - key row and dx likewise for columns; on a line of N = w
    tokens, of one dimension, row `dx + w-1`.
    """
    places = np.arange(window, dtype="int32")
    steps = places[:, None] - places[None, :] + window - 1  # (w, w)
    if dimensions == 1:
        return ops.convert_to_tensor(steps)
    # Added up by the program: as constants, one of 64 MiB for each use would
    # lie in a graph with a map of 64 x 64 tokens.
    dy = ops.convert_to_tensor(steps * (2 * window - 1))[:, None, :, None]
    dx = ops.convert_to_tensor(steps)[None, :, None, :]
    return ops.reshape(dy + dx, (window**2, window**2))


@keras.saving.register_keras_serializable(package="transgan_tf")
class RelativePosition(keras.layers.Layer):
    """A learned bias of attention scores for each head and displacement.

    Args:
        window: int. Side of the square window, or length of the line, w.
        heads: int. Number of attention heads, h.
        dimensions: int. 2 for a square of N = w*w tokens, 1 for a line of
            N = w.

    Call arguments:
        scores: scaled scores `(B, h, N, N)`, float32.

    Returns:
        The scores with the bias of each (query, key) pair added, float32.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.3:
        softmax(QK^T / sqrt(d_k) + E) V, E read from a learned M of shape
        (2H-1, 2W-1).
    """

    def __init__(self, window, heads, dimensions=2, **kwargs):
        # The softmax that follows is float32 under every policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        # === Config ===
        self.window = window
        self.heads = heads
        self.dimensions = dimensions

    def build(self, input_shape):
        tokens = self.window**self.dimensions
        if input_shape[-1] not in (None, tokens):
            raise ValueError(
                f"a window of {self.window} has {tokens} tokens, got scores "
                f"of shape {tuple(input_shape)}"
            )
        self.table = self.add_weight(
            name="table",
            shape=((2 * self.window - 1) ** self.dimensions, self.heads),
            initializer=embedding_normal(),
        )

    def call(self, scores):
        index = relative_position_index(self.window, self.dimensions)
        bias = ops.take(self.table, index, axis=0)  # (N, N, h)
        return scores + ops.transpose(bias, (2, 0, 1))  # (B, h, N, N)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "window": self.window,
                "heads": self.heads,
                "dimensions": self.dimensions,
            }
        )
        return config


@keras.saving.register_keras_serializable(package="transgan_tf")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned embedding to each place of a sequence of tokens.

    Call arguments:
        x: tokens `(B, N, D)`.

    Returns:
        Tokens `(B, N, D)`.
    """

    def build(self, input_shape):
        self.embedding = self.add_weight(
            name="embedding",
            shape=(1, *input_shape[1:]),
            initializer=embedding_normal(),
        )

    def call(self, x):
        return x + self.embedding

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="transgan_tf")
class ClassToken(keras.layers.Layer):
    """Prepends a learned token, whose output is the image's summary.

    Call arguments:
        x: tokens `(B, N, D)`.

    Returns:
        Tokens `(B, 1 + N, D)`.
    """

    def build(self, input_shape):
        self.token = self.add_weight(
            name="token",
            shape=(1, 1, input_shape[-1]),
            initializer=embedding_normal(),
        )

    def call(self, x):
        batch = ops.shape(x)[0]
        token = ops.broadcast_to(self.token, (batch, 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)  # (B, 1 + N, D)

    def compute_output_shape(self, input_shape):
        batch, tokens, channels = input_shape
        return (batch, tokens + 1, channels)
