"""The transformer block of both networks."""

import keras

from transgan_tf.checked import require_choice
from transgan_tf.layers.activation import gelu
from transgan_tf.layers.attention import AttentionNoise
from transgan_tf.layers.attention import GridSelfAttention
from transgan_tf.layers.attention import MultiHeadAttention
from transgan_tf.layers.axis import AxisSelfAttention
from transgan_tf.layers.initializers import dense
from transgan_tf.layers.norm import make_norm
from transgan_tf.layers.nystrom import NystromSelfAttention
from transgan_tf.network_configs import ATTENTIONS
from transgan_tf.remat import call_layer


@keras.saving.register_keras_serializable(package="transgan_tf")
class TransformerBlock(keras.layers.Layer):
    """Pre-norm: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    GELU by the error function. Attention noise, if any, is added before qkv.

    Args:
        heads: int. Number of attention heads.
        resolution: int or None. Side of the square map that the tokens lie on;
            None for plain attention over any tokens, as for the block of the
            CLS token.
        window: int or None. Side of the windows of `"grid"` attention; None for
            the whole map.
        mlp_ratio: int. Hidden width of the MLP over the tokens' width.
        norm: string. `"layer_norm"` or `"token_scaling"`.
        relative_position: bool. Whether scores get relative positions; those of
            `"nystrom"` have none.
        attention_noise: bool. Whether there is a learned noise strength.
        initialization: string. See `transgan_tf.layers.initializers.dense`.
        attention: string. `"grid"`, `"standard"` (over the whole map),
            `"nystrom"` or `"axis"`, if there is a `resolution`.
        landmarks: int. Number of landmarks of `"nystrom"`.

    Call arguments:
        x: tokens `(B, N, D)`.
        draws: `transgan_tf.randomness.Draws` of the attention noise, or None
            for no noise.

    Returns:
        Tokens `(B, N, D)`.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.1.
    """

    def __init__(
        self,
        heads,
        resolution=None,
        window=None,
        mlp_ratio=4,
        norm="layer_norm",
        relative_position=True,
        attention_noise=False,
        initialization="fan_in_uniform",
        attention="grid",
        landmarks=64,
        **kwargs,
    ):
        require_choice("attention", attention, ATTENTIONS)
        super().__init__(**kwargs)
        # === Config ===
        self.heads = heads
        self.resolution = resolution
        self.window = window
        self.mlp_ratio = mlp_ratio
        self.norm = norm
        self.relative_position = relative_position
        self.attention_noise = attention_noise
        self.initialization = initialization
        self.attention_kind = attention
        self.landmarks = landmarks
        # === Layers ===
        policy = self.dtype_policy
        self.norm_1 = make_norm(norm, dtype=policy, name="norm_1")
        self.noise = None
        if attention_noise:
            self.noise = AttentionNoise(dtype=policy, name="noise")
        self.attention = self._make_attention()
        self.norm_2 = make_norm(norm, dtype=policy, name="norm_2")

    def _make_attention(self):
        shared = {
            "initialization": self.initialization,
            "dtype": self.dtype_policy,
            "name": "attention",
        }
        kind, side = self.attention_kind, self.resolution
        if side is None:
            return MultiHeadAttention(self.heads, **shared)
        if kind == "nystrom":
            return NystromSelfAttention(self.heads, self.landmarks, **shared)
        if kind == "axis":
            return AxisSelfAttention(
                self.heads, side, side, self.relative_position, **shared
            )
        window = self.window if kind == "grid" else None
        return GridSelfAttention(
            self.heads,
            side,
            side,
            window or side,
            self.relative_position,
            **shared,
        )

    def build(self, input_shape):
        batch, tokens, width = input_shape
        hidden = self.mlp_ratio * width
        self.norm_1.build(input_shape)
        if self.noise is not None:
            self.noise.build(input_shape)
        self.attention.build(input_shape)
        self.norm_2.build(input_shape)
        self.mlp_1 = self._dense(hidden, width, name="mlp_1")
        self.mlp_1.build(input_shape)
        self.mlp_2 = self._dense(width, hidden, name="mlp_2")
        self.mlp_2.build((batch, tokens, hidden))

    def _dense(self, units, fan_in, name):
        return dense(
            units,
            fan_in,
            self.initialization,
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, x, draws=None):
        y = self.norm_1(x)
        if self.noise is not None:
            y = self.noise(y, draws=draws)
        x = x + self.attention(y)
        y = self.mlp_1(self.norm_2(x))  # (B, N, mlp_ratio * D)
        return x + self.mlp_2(gelu(y))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            {
                "heads": self.heads,
                "resolution": self.resolution,
                "window": self.window,
                "mlp_ratio": self.mlp_ratio,
                "norm": self.norm,
                "relative_position": self.relative_position,
                "attention_noise": self.attention_noise,
                "initialization": self.initialization,
                "attention": self.attention_kind,
                "landmarks": self.landmarks,
            }
        )
        return config


def make_blocks(config, stage, initialization, dtype) -> list:
    """Returns the transformer blocks of one stage row of either network."""
    return [
        TransformerBlock(
            config.heads,
            stage.resolution,
            window,
            config.mlp_ratio,
            config.norm,
            config.relative_position,
            config.attention_noise,
            initialization,
            config.attention_of(stage),
            config.landmarks,
            dtype=dtype,
            name=f"block_{number}",
        )
        for number, window in enumerate(stage.block_windows())
    ]


def run_blocks(blocks, x, stage, draws):
    """Applies blocks in order, each with attention noise of its own.

    Args:
        blocks: of one stage.
        x: tokens `(B, N, D)`.
        stage: the stage's name, see `NetworkConfig.stage_name`.
        draws: `transgan_tf.randomness.Draws` of the batch, or None.
    """
    for number, block in enumerate(blocks):
        own = draws and draws.fold_in(number)
        x = call_layer(block, x, stage=stage, draws=own)
    return x
