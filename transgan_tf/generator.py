"""The generator: stages of transformer blocks that grow the feature map."""

import dataclasses

import keras
from keras import ops

from transgan_tf.checked import from_dict
from transgan_tf.layers import PositionEmbedding
from transgan_tf.layers import Upsampling
from transgan_tf.layers.block import make_blocks
from transgan_tf.layers.block import run_blocks
from transgan_tf.layers.initializers import dense
from transgan_tf.layers.initializers import fan_in_uniform
from transgan_tf.layers.reshape import tokens_to_map
from transgan_tf.network_configs import GeneratorConfig


class GeneratorStage(keras.layers.Layer):
    """Upsampling into the stage, absolute positions, blocks.

    Call arguments:
        x: tokens of the stage before, `(B, N, D)`.
        draws: see `Generator`.

    Returns:
        Tokens `(B, resolution**2, width)`.
    """

    def __init__(self, config, index, **kwargs):
        super().__init__(**kwargs)
        stage = config.stages[index]
        policy = self.dtype_policy
        self.upsampling = None
        if stage.upsample is not None:
            side = stage.resolution // 2
            self.upsampling = Upsampling(
                stage.upsample, side, side, dtype=policy, name="upsampling"
            )
        self.position = PositionEmbedding(dtype=policy, name="position")
        self.blocks = make_blocks(config, stage, "fan_in_uniform", policy)
        self.output_tokens = (stage.resolution**2, stage.width)
        self.stage_name = config.stage_name(stage)

    def build(self, input_shape):
        if self.upsampling is not None:
            self.upsampling.build(input_shape)
        shape = self.compute_output_shape(input_shape)
        for layer in (self.position, *self.blocks):
            layer.build(shape)

    def call(self, x, draws=None):
        if self.upsampling is not None:
            x = self.upsampling(x)  # (B, N, D) of this stage
        return run_blocks(self.blocks, self.position(x), self.stage_name, draws)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.output_tokens)


@keras.saving.register_keras_serializable(package="transgan_tf")
class Generator(keras.Model):
    """Makes images of latents.

    Args:
        config: `GeneratorConfig`, or a dict of its fields.

    Call arguments:
        latents: `(B, latent_dim)`, standard normal.
        draws: `transgan_tf.randomness.Draws` of the batch, for attention noise;
            None for none, as in sampling.

    Returns:
        Images `(B, H, W, C)` float32. Without `output_activation="tanh"` they
        are meant to lie in [-1, 1] but are not clipped: clip where pixels leave
        the program.

    Example:

    ```python
    generator = Generator(get_preset("cifar10").config.generator)
    images = generator(keras.random.normal((16, 256)))  # (16, 32, 32, 3)
    ```

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.1; the authors'
        `ViT_custom_rp.py` and `ViT_custom_local544444_256_rp_noise.py`.
    """

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        if isinstance(config, dict):
            config = from_dict(GeneratorConfig, config)
        config.require_architecture("transformer")
        self.config = config
        # === Layers ===
        policy = self.dtype_policy
        first = config.stages[0]
        self.from_latent = dense(
            first.resolution**2 * first.width,
            config.latent_dim,
            "fan_in_uniform",
            dtype=policy,
            name="from_latent",
        )
        self.stages = [
            GeneratorStage(config, index, dtype=policy, name=f"stage_{index}")
            for index in range(len(config.stages))
        ]
        # A 1 x 1 convolution.
        self.to_image = keras.layers.Dense(
            config.channels,
            kernel_initializer="glorot_uniform",
            bias_initializer=fan_in_uniform(config.stages[-1].width),
            dtype=policy,
            name="to_image",
        )

    def build(self, input_shape):
        batch = input_shape[0]
        first = self.config.stages[0]
        self.from_latent.build((batch, self.config.latent_dim))
        shape = (batch, first.resolution**2, first.width)
        for stage in self.stages:
            stage.build(shape)
            shape = stage.compute_output_shape(shape)
        self.to_image.build(shape)

    def call(self, latents, draws=None):
        first = self.config.stages[0]
        x = self.from_latent(latents)
        x = ops.reshape(x, (-1, first.resolution**2, first.width))  # (B, N, D)
        for number, stage in enumerate(self.stages):
            x = stage(x, draws=draws and draws.fold_in(number))
        size = self.config.image_size
        images = tokens_to_map(self.to_image(x), size, size)
        images = ops.cast(images, "float32")  # (B, H, W, C)
        if self.config.output_activation == "tanh":
            images = ops.tanh(images)
        return images

    def compute_output_shape(self, input_shape):
        size = self.config.image_size
        return (input_shape[0], size, size, self.config.channels)

    def get_config(self):
        config = super().get_config()
        config.update({"config": dataclasses.asdict(self.config)})
        return config
