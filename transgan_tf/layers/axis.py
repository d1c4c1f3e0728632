"""Axis self-attention: within each row, then within each column."""

import keras
from keras import ops

from transgan_tf.layers.attention import MultiHeadAttention


@keras.saving.register_keras_serializable(package="transgan_tf")
class AxisSelfAttention(keras.layers.Layer):
    """Attention within each row of the map, then within each column of that.

    After both, each token has seen the whole map. Memory grows with
    H*W * (H + W) instead of (H*W)**2.

    The TransGAN paper's ablation names it without a definition; this is our
    reading: two attentions in one block, each with weights of its own, the
    second on the first's output. Axial transformers give each a block.

    Args:
        heads: int. Number of heads.
        height: int. Height of the map, H.
        width: int. Width of the map, W.
        relative_position: bool. Whether scores get the relative positions of
            their row or column.
        initialization: string. See `transgan_tf.layers.initializers.dense`.

    Call arguments:
        x: tokens `(B, H*W, D)`.

    Returns:
        Tokens `(B, H*W, D)`.

    Reference:
        Axial transformers (https://arxiv.org/abs/1912.12180).
    """

    def __init__(
        self,
        heads,
        height,
        width,
        relative_position=True,
        initialization="fan_in_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        # === Config ===
        self.heads = heads
        self.height = height
        self.width = width
        self.relative_position = relative_position
        self.initialization = initialization
        # === Layers ===
        self.rows = self._along(width, name="rows")
        self.columns = self._along(height, name="columns")

    def _along(self, length, name):
        """Returns the attention of lines of `length` tokens."""
        return MultiHeadAttention(
            self.heads,
            length if self.relative_position else None,
            self.initialization,
            dimensions=1,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        channels = input_shape[-1]
        self.rows.build((None, self.width, channels))
        self.columns.build((None, self.height, channels))

    def call(self, x):
        height, width, channels = self.height, self.width, x.shape[-1]
        x = self.rows(ops.reshape(x, (-1, width, channels)))  # (B*H, W, D)
        x = ops.reshape(x, (-1, height, width, channels))
        x = ops.transpose(x, (0, 2, 1, 3))  # (B, W, H, D)
        x = self.columns(ops.reshape(x, (-1, height, channels)))  # (B*W, H, D)
        x = ops.reshape(x, (-1, width, height, channels))
        x = ops.transpose(x, (0, 2, 1, 3))  # (B, H, W, D)
        return ops.reshape(x, (-1, height * width, channels))  # (B, N, D)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "heads": self.heads,
                "height": self.height,
                "width": self.width,
                "relative_position": self.relative_position,
                "initialization": self.initialization,
            }
        )
        return config
