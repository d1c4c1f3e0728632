"""Tokens, maps and windows: shuffles, resampling and patches.

B batch, H W height and width, N tokens, D width, w window, P patch. Tokens are
`(B, N, D)` in row-major order, maps `(B, H, W, D)`.
"""

import keras
import numpy as np
from keras import ops

from transgan_tf.checked import require_choice
from transgan_tf.layers.initializers import fan_in_uniform


def map_to_tokens(x):
    """Returns the tokens `(B, H*W, D)` of a map `(B, H, W, D)`."""
    height, width, channels = x.shape[1:]
    return ops.reshape(x, (-1, height * width, channels))  # (B, N, D)


def tokens_to_map(x, height: int, width: int):
    """Returns the map `(B, H, W, D)` of tokens `(B, H*W, D)`."""
    return ops.reshape(x, (-1, height, width, x.shape[-1]))  # (B, H, W, D)


def window_partition(x, height: int, width: int, window: int):
    """Cuts tokens' map into non-overlapping windows.

    Args:
        x: tokens `(B, H*W, D)`.
        height, width: the map's sides H and W, divisible by `window`.
        window: side of a window, w.

    Returns:
        `(B * H/w * W/w, w*w, D)`, the windows of a map in row-major order.
    """
    channels = x.shape[-1]
    rows, columns = height // window, width // window
    x = ops.reshape(x, (-1, rows, window, columns, window, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, H/w, W/w, w, w, D)
    return ops.reshape(x, (-1, window * window, channels))


def window_merge(x, height: int, width: int, window: int):
    """Inverse of `window_partition`: returns tokens `(B, H*W, D)`."""
    channels = x.shape[-1]
    rows, columns = height // window, width // window
    x = ops.reshape(x, (-1, rows, columns, window, window, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, H/w, w, W/w, w, D)
    return ops.reshape(x, (-1, height * width, channels))


def pixel_shuffle(x):
    """Doubles a map's sides and quarters its width.

    PyTorch's order: channel `c*4 + i*2 + j` goes to row i, column j of each
    2 x 2 cell.

    Args:
        x: `(B, H, W, 4*D)`.

    Returns:
        `(B, 2*H, 2*W, D)`.
    """
    height, width, channels = x.shape[1:]
    x = ops.reshape(x, (-1, height, width, channels // 4, 2, 2))
    x = ops.transpose(x, (0, 1, 4, 2, 5, 3))  # (B, H, 2, W, 2, D)
    return ops.reshape(x, (-1, 2 * height, 2 * width, channels // 4))


def bicubic_matrix(size: int) -> np.ndarray:
    """Returns the `(2*size, size)` float32 matrix that doubles a line.

    Half-pixel centres, cubic coefficient a = -0.75, edges clamped, as in
    PyTorch (`tf.image` uses a = -0.5).
    """
    matrix = np.zeros((2 * size, size))
    for row in range(2 * size):
        centre = (row + 0.5) / 2 - 0.5
        first = int(np.floor(centre)) - 1
        for tap in range(first, first + 4):
            column = min(max(tap, 0), size - 1)
            matrix[row, column] += _cubic(abs(centre - tap))
    return matrix.astype("float32")


def _cubic(distance, a=-0.75):
    """The cubic convolution kernel (Keys 1981) at `distance` in [0, 2]."""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance**2 + 1
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a


def bicubic_upsample(x):
    """Doubles a map's sides by bicubic interpolation, which keeps its width.

    Args:
        x: `(B, H, W, D)`.

    Returns:
        `(B, 2*H, 2*W, D)`.
    """
    vertical = ops.cast(bicubic_matrix(x.shape[1]), x.dtype)
    horizontal = ops.cast(bicubic_matrix(x.shape[2]), x.dtype)
    x = ops.einsum("rh,bhwd->brwd", vertical, x)
    return ops.einsum("cw,brwd->brcd", horizontal, x)


def nearest_upsample(x):
    """Doubles a map's sides: `(B, H, W, D)` to `(B, 2*H, 2*W, D)`."""
    return ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)


def mean_pool(x):
    """Averages a map over 2 x 2 cells: `(B, 2*H, 2*W, D)` to `(B, H, W, D)`."""
    height, width, channels = x.shape[1:]
    rows, columns = height // 2, width // 2
    cells = ops.reshape(x, (-1, rows, 2, columns, 2, channels))
    # In float32: the sum of four can overflow float16.
    wide = ops.mean(ops.cast(cells, "float32"), axis=(2, 4))
    return ops.cast(wide, x.dtype)


UPSAMPLERS = {"bicubic": bicubic_upsample, "pixel_shuffle": pixel_shuffle}


@keras.saving.register_keras_serializable(package="transgan_tf")
class Upsampling(keras.layers.Layer):
    """Doubles the sides of the map that tokens lie on.

    Args:
        kind: string. `"bicubic"` keeps the width, `"pixel_shuffle"` quarters
            it.
        height: int. Height of the incoming map.
        width: int. Width of the incoming map.

    Call arguments:
        x: tokens `(B, H*W, D)`.

    Returns:
        Tokens `(B, 4*H*W, D)` or `(B, 4*H*W, D/4)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.1: pixel shuffle
        and, above it, bicubic interpolation between the stages.
    """

    def __init__(self, kind, height, width, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.kind = kind
        self.height = height
        self.width = width
        require_choice("kind", kind, UPSAMPLERS)

    def build(self, input_shape):
        if self.kind == "pixel_shuffle" and input_shape[-1] % 4:
            raise ValueError(
                "pixel_shuffle needs a width divisible by 4, got "
                f"{input_shape[-1]}"
            )

    def call(self, x):
        x = tokens_to_map(x, self.height, self.width)  # (B, H, W, D)
        return map_to_tokens(UPSAMPLERS[self.kind](x))  # (B, 4*N, D or D/4)

    def compute_output_shape(self, input_shape):
        batch, tokens, channels = input_shape
        shrink = 4 if self.kind == "pixel_shuffle" else 1
        return (batch, 4 * tokens, channels // shrink)

    def get_config(self):
        config = super().get_config()
        config.update(
            {"kind": self.kind, "height": self.height, "width": self.width}
        )
        return config


@keras.saving.register_keras_serializable(package="transgan_tf")
class PatchEmbedding(keras.layers.Layer):
    """Embeds an image's patches: a convolution whose stride is its size.

    Args:
        patch_size: int. Side of a patch in pixels, P.
        embedding_dim: int. Width of a token, D.

    Call arguments:
        images: `(B, H, W, C)`, sides divisible by P.

    Returns:
        Tokens `(B, H/P * W/P, D)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.1, multi-scale
        discriminator.
    """

    def __init__(self, patch_size, embedding_dim, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.patch_size = patch_size
        self.embedding_dim = embedding_dim

    def build(self, input_shape):
        _, height, width, channels = input_shape
        side = self.patch_size
        if height % side or width % side:
            raise ValueError(
                f"patch_size must divide the image's sides, got {side} for "
                f"{height} x {width}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(side, side, channels, self.embedding_dim),
            initializer="glorot_uniform",
        )
        self.bias = self.add_weight(
            name="bias",
            shape=(self.embedding_dim,),
            initializer=fan_in_uniform(side * side * channels),
        )

    def call(self, images):
        _, height, width, channels = images.shape
        side = self.patch_size
        rows, columns = height // side, width // side
        # A matrix product: its gradient's gradient is two more, where a
        # convolution's is slow on every device.
        x = ops.reshape(images, (-1, rows, side, columns, side, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (B, H/P, W/P, P, P, C)
        x = ops.reshape(x, (-1, rows * columns, side * side * channels))
        kernel = ops.reshape(self.kernel, (-1, self.embedding_dim))
        return ops.matmul(x, kernel) + self.bias  # (B, N, D)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        tokens = (height // self.patch_size) * (width // self.patch_size)
        return (batch, tokens, self.embedding_dim)

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "patch_size": self.patch_size,
                "embedding_dim": self.embedding_dim,
            }
        )
        return config


@keras.saving.register_keras_serializable(package="transgan_tf")
class TokenPooling(keras.layers.Layer):
    """Averages tokens over 2 x 2 cells of the map that they lie on.

    Args:
        height: int. Height of the incoming map, even.
        width: int. Width of the incoming map, even.

    Call arguments:
        x: tokens `(B, H*W, D)`.

    Returns:
        Tokens `(B, H/2 * W/2, D)`.
    """

    def __init__(self, height, width, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.height = height
        self.width = width
        if height % 2 or width % 2:
            raise ValueError(
                f"height and width must be even, got {height} x {width}"
            )

    def call(self, x):
        x = mean_pool(tokens_to_map(x, self.height, self.width))
        return map_to_tokens(x)  # (B, N/4, D)

    def compute_output_shape(self, input_shape):
        batch, tokens, channels = input_shape
        return (batch, tokens // 4, channels)

    def get_config(self):
        config = super().get_config()
        config.update({"height": self.height, "width": self.width})
        return config
