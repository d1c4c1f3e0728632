"""Multi-head self-attention, over all tokens or over a grid of windows."""

import keras
from keras import ops

from transgan_tf.layers.initializers import check_initialization
from transgan_tf.layers.initializers import dense
from transgan_tf.layers.position import RelativePosition
from transgan_tf.layers.reshape import window_merge
from transgan_tf.layers.reshape import window_partition


@keras.saving.register_keras_serializable(package="transgan_tf")
class AttentionNoise(keras.layers.Layer):
    """Adds the same normal number to all channels of a token.

    `x + normal(B, N, 1) * strength` with one learned strength, at first 0: a
    term of the authors' code that the paper does not describe. Without `draws`
    the tokens pass unchanged.

    Call arguments:
        x: tokens `(B, N, D)`.
        draws: `transgan_tf.randomness.Draws` of the batch, or None.

    Returns:
        Tokens `(B, N, D)`.
    """

    def build(self, input_shape):
        self.strength = self.add_weight(
            name="strength", shape=(), initializer="zeros"
        )

    def call(self, x, draws=None):
        if draws is None:
            return x
        noise = ops.cast(draws.normal(x.shape[1], 1), x.dtype)  # (B, N, 1)
        return x + noise * self.strength

    def compute_output_shape(self, input_shape):
        return input_shape


class SelfAttention(keras.layers.Layer):
    """Queries, keys and values of all heads, and the projection of what comes.

    Subclasses say by `attend` how heads attend.

    Args:
        heads: int. Number of heads, h; divides the width D.
        initialization: string. See `transgan_tf.layers.initializers.dense`.
    """

    def __init__(self, heads, initialization="fan_in_uniform", **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.heads = heads
        self.initialization = initialization
        check_initialization(initialization)

    def build(self, input_shape):
        width = input_shape[-1]
        if width % self.heads:
            raise ValueError(
                f"heads must divide the width {width}, got {self.heads}"
            )
        shared = {
            "fan_in": width,
            "initialization": self.initialization,
            "dtype": self.dtype_policy,
        }
        self.qkv = dense(3 * width, use_bias=False, name="qkv", **shared)
        self.qkv.build(input_shape)
        self.projection = dense(width, name="projection", **shared)
        self.projection.build(input_shape)

    def call(self, x):
        tokens, width = x.shape[1:]
        head_dim = width // self.heads
        qkv = self.qkv(x)  # (B, N, 3*D)
        qkv = ops.reshape(qkv, (-1, tokens, 3, self.heads, head_dim))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))  # (3, B, h, N, D/h)
        # Slices instead would each have a gradient of the size of all three.
        query, key, value = ops.unstack(qkv, 3)  # (B, h, N, D/h) each
        x = self.attend(query * head_dim**-0.5, key, value)
        x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (-1, tokens, width))  # (B, N, D)
        return self.projection(x)

    def attend(self, query, key, value):
        """Mixes the values of each head.

        Args:
            query: scaled queries `(B, h, N, D/h)`.
            key, value: likewise.

        Returns:
            `(B, h, N, D/h)`.
        """
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {"heads": self.heads, "initialization": self.initialization}
        )
        return config


@keras.saving.register_keras_serializable(package="transgan_tf")
class MultiHeadAttention(SelfAttention):
    """Self-attention with relative position encoding.

    Scores are scaled by `head_dim**-0.5`. Relative positions are added and the
    softmax is taken in float32 under every dtype policy.

    Args:
        heads: int. Number of heads, h; divides the width D.
        window: int or None. Side w of the square map that the tokens lie on,
            or the length of their line, for relative position encoding; None
            for none.
        initialization: string. See `transgan_tf.layers.initializers.dense`.
        dimensions: int. 2 for tokens on a square map, 1 for those on a line.

    Call arguments:
        x: tokens `(B, N, D)`, N = w**dimensions if `window` is given.

    Returns:
        Tokens `(B, N, D)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.3.
    """

    def __init__(
        self,
        heads,
        window=None,
        initialization="fan_in_uniform",
        dimensions=2,
        **kwargs,
    ):
        super().__init__(heads, initialization, **kwargs)
        # === Config ===
        self.window = window
        self.dimensions = dimensions

    def build(self, input_shape):
        super().build(input_shape)
        tokens = input_shape[1]
        if self.window is not None:
            self.relative_position = RelativePosition(
                self.window,
                self.heads,
                self.dimensions,
                name="relative_position",
            )
            self.relative_position.build((None, self.heads, tokens, tokens))

    def attend(self, query, key, value):
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        scores = ops.cast(scores, "float32")  # (B, h, N, N)
        if self.window is not None:
            scores = self.relative_position(scores)
        weights = ops.cast(ops.softmax(scores, axis=-1), value.dtype)
        return ops.matmul(weights, value)

    def get_config(self):
        config = super().get_config()
        config.update({"window": self.window, "dimensions": self.dimensions})
        return config


@keras.saving.register_keras_serializable(package="transgan_tf")
class GridSelfAttention(keras.layers.Layer):
    """Self-attention within each window of a grid.

    The map is cut into non-overlapping windows; tokens attend to their own
    window alone. All windows share weights and the relative position table.
    Memory grows with H*W * w*w instead of (H*W)**2.

    Args:
        heads: int. Number of heads.
        height: int. Height of the map, H.
        width: int. Width of the map, W.
        window: int. Side of a window, w; divides H and W.
        relative_position: bool. Whether scores get relative positions.
        initialization: string. See `transgan_tf.layers.initializers.dense`.

    Call arguments:
        x: tokens `(B, H*W, D)`.

    Returns:
        Tokens `(B, H*W, D)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.2.
    """

    def __init__(
        self,
        heads,
        height,
        width,
        window,
        relative_position=True,
        initialization="fan_in_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        # === Config ===
        self.heads = heads
        self.height = height
        self.width = width
        self.window = window
        self.relative_position = relative_position
        self.initialization = initialization
        if height % window or width % window:
            raise ValueError(
                f"window must divide the map {height} x {width}, got {window}"
            )
        # === Layers ===
        self.attention = MultiHeadAttention(
            heads,
            window if relative_position else None,
            initialization,
            dtype=self.dtype_policy,
            name="attention",
        )

    def build(self, input_shape):
        batch, _, width = input_shape
        self.attention.build((batch, self.window**2, width))

    def call(self, x):
        if self.height == self.width == self.window:
            return self.attention(x)
        grid = (self.height, self.width, self.window)
        windows = window_partition(x, *grid)  # (B * H/w * W/w, w*w, D)
        return window_merge(self.attention(windows), *grid)  # (B, N, D)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "heads": self.heads,
                "height": self.height,
                "width": self.width,
                "window": self.window,
                "relative_position": self.relative_position,
                "initialization": self.initialization,
            }
        )
        return config
