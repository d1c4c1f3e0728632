"""Normalizations of a transformer block."""

import keras
from keras import ops

LAYER_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="transgan_tf")
class TokenScaling(keras.layers.Layer):
    """Divides each token by its root mean square; has no weights.

    Computed in float32 whatever the dtype policy.

    Args:
        epsilon: float. Added to the mean square.

    Call arguments:
        x: tokens `(B, N, D)`.

    Returns:
        Tokens `(B, N, D)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.3, "modified
        normalization": Y = X / sqrt(mean_c X^2 + eps).
    """

    def __init__(self, epsilon=1e-8, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.epsilon = epsilon

    def call(self, x):
        wide = ops.cast(x, "float32")
        power = ops.mean(ops.square(wide), axis=-1, keepdims=True)
        return ops.cast(wide * ops.rsqrt(power + self.epsilon), x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update({"epsilon": self.epsilon})
        return config


def make_norm(kind: str, **kwargs) -> keras.layers.Layer:
    """Returns the normalization that a configuration names.

    Args:
        kind: `"layer_norm"` or `"token_scaling"`.
        **kwargs: passed to the layer.
    """
    if kind == "layer_norm":
        return keras.layers.LayerNormalization(
            epsilon=LAYER_NORM_EPSILON, **kwargs
        )
    if kind == "token_scaling":
        return TokenScaling(**kwargs)
    raise ValueError(
        f"norm must be one of layer_norm, token_scaling, got {kind!r}"
    )
