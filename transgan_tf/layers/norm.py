"""Normalizations of the networks' blocks, over the last axis."""

import keras
from keras import ops

from transgan_tf.checked import require_choice


@keras.saving.register_keras_serializable(package="transgan_tf")
class LayerNorm(keras.layers.Layer):
    """Layer normalization whose second derivative is right.

    Keras' own goes through `tf.nn.moments`, which stops the gradient at the
    mean within the variance: right for a first derivative, but a gradient
    penalty takes two, and its gradients were off by up to 2 %.

    Computed in float32 whatever the dtype policy.

    Args:
        epsilon: float. Added to the variance; PyTorch's by default.

    Call arguments:
        x: tokens `(B, N, D)`.

    Returns:
        Tokens `(B, N, D)`.
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        self.epsilon = epsilon

    def build(self, input_shape):
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(
            name="gamma", shape=shape, initializer="ones"
        )
        self.beta = self.add_weight(
            name="beta", shape=shape, initializer="zeros"
        )

    def call(self, x):
        wide = ops.cast(x, "float32")
        wide = wide - ops.mean(wide, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(wide), axis=-1, keepdims=True)
        scale = ops.rsqrt(variance + self.epsilon)
        scale = scale * ops.cast(self.gamma, "float32")
        y = wide * scale + ops.cast(self.beta, "float32")
        return ops.cast(y, x.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update({"epsilon": self.epsilon})
        return config


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


_NORMS = {"layer_norm": LayerNorm, "token_scaling": TokenScaling}


def make_norm(kind: str, **kwargs) -> keras.layers.Layer:
    """Returns the normalization that a configuration names.

    Args:
        kind: `"layer_norm"` or `"token_scaling"`.
        **kwargs: passed to the layer.
    """
    require_choice("norm", kind, _NORMS)
    return _NORMS[kind](**kwargs)


def optional_norm(kind: str, **kwargs) -> keras.layers.Layer:
    """Returns the same, or for `"none"` a layer that changes nothing."""
    if kind == "none":
        return keras.layers.Identity(**kwargs)
    return make_norm(kind, **kwargs)
