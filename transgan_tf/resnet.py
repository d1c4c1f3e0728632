"""A convolutional pair, to compare the transformers with.

From Gulrajani et al. 2017 (WGAN-GP, https://arxiv.org/abs/1704.00028), their
ResNet for CIFAR-10: blocks of two 3 x 3 convolutions with nearest-neighbour
upsampling before or mean pooling after; a discriminator without normalization
that takes the image unactivated and averages its last map; initial weights.
Miyato et al. 2018 (SNGAN, https://arxiv.org/abs/1802.05957) use the same
blocks; their spectral normalization carries vectors from step to step and is
left out, as the gradient penalty already bounds the slope.

Ours: the transformers' norms, of each position's channels, where their
generators have batch normalization. So weights are the only state, and no image
depends on its batch, as the penalty needs (Gulrajani et al., section 4).
"""

import dataclasses
import math

import keras
from keras import ops

from transgan_tf.checked import from_dict
from transgan_tf.layers.initializers import convolution
from transgan_tf.layers.norm import optional_norm
from transgan_tf.layers.reshape import mean_pool
from transgan_tf.layers.reshape import nearest_upsample
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.remat import call_layer


class ResidualBlock(keras.layers.Layer):
    """`shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))` at a resolution.

    A smaller map is doubled before the convolutions, a larger one halved after
    them. The shortcut is a 1 x 1 convolution where resolution or width change.

    Args:
        config: of the network, for the norm.
        stage: `Stage`, for the resolution and the width.
        takes_image: whether x is an image, to be left as it is.

    Call arguments:
        x: map `(B, H, W, D')`, of 0.5, 1 or 2 times the resolution.
    """

    def __init__(self, config, stage, takes_image=False, **kwargs):
        super().__init__(**kwargs)
        self.resolution, self.width = stage.resolution, stage.width
        self.stage_name = config.stage_name(stage)
        self.takes_image = takes_image
        policy = self.dtype_policy
        kind = "none" if takes_image else config.norm
        self.norm_1 = optional_norm(kind, dtype=policy, name="norm_1")
        self.conv_1 = convolution(self.width, 3, dtype=policy, name="conv_1")
        self.norm_2 = optional_norm(config.norm, dtype=policy, name="norm_2")
        self.conv_2 = convolution(self.width, 3, dtype=policy, name="conv_2")
        self.shortcut = None

    def build(self, input_shape):
        inside = (*input_shape[:-1], self.width)
        self.norm_1.build(input_shape)
        self.conv_1.build(input_shape)
        self.norm_2.build(inside)
        self.conv_2.build(inside)
        if input_shape[2:] != (self.resolution, self.width):
            shared = {"dtype": self.dtype_policy, "name": "shortcut"}
            self.shortcut = convolution(self.width, 1, gain=1.0, **shared)
            self.shortcut.build(input_shape)

    def call(self, x):
        y = x if self.takes_image else ops.relu(self.norm_1(x))
        if x.shape[1] < self.resolution:
            y = nearest_upsample(y)
        y = self.conv_2(ops.relu(self.norm_2(self.conv_1(y))))
        if x.shape[1] > self.resolution:
            x, y = mean_pool(x), mean_pool(y)
        if self.shortcut is not None:
            x = self.shortcut(x)
        if x.shape[1] < self.resolution:  # After its 1 x 1 convolution.
            x = nearest_upsample(x)
        return x + y

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.resolution, self.resolution, self.width)


class ResNet(keras.Model):
    """What both have: a configuration, blocks, and a norm after them.

    Args:
        config: `config_class` of the architecture `"resnet"`, or a dict.
    """

    config_class = None

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        if isinstance(config, dict):
            config = from_dict(self.config_class, config)
        config.require_architecture("resnet")
        self.config = config
        judges = self.config_class is DiscriminatorConfig
        policy = self.dtype_policy
        rows = [stage for stage in config.stages for _ in range(stage.depth)]
        self.blocks = [
            ResidualBlock(
                config, row, judges and n == 0, dtype=policy, name=f"block_{n}"
            )
            for n, row in enumerate(rows)
        ]
        self.norm = optional_norm(config.norm, dtype=policy, name="norm")

    def _build_blocks(self, shape):
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        self.norm.build(shape)
        return shape

    def _run_blocks(self, x):
        for block in self.blocks:
            x = call_layer(block, x, stage=block.stage_name)
        return ops.relu(self.norm(x))

    def get_config(self):
        plain = {"config": dataclasses.asdict(self.config)}
        return super().get_config() | plain


@keras.saving.register_keras_serializable(package="transgan_tf")
class ResNetGenerator(ResNet):
    """Makes images of latents, as `transgan_tf.generator.Generator` is called.

    Call arguments:
        latents: `(B, latent_dim)`, standard normal.
        draws: not used.

    Returns:
        Images `(B, H, W, C)` float32.
    """

    config_class = GeneratorConfig

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        policy, first = self.dtype_policy, self.config.stages[0]
        self.first_map = (first.resolution, first.resolution, first.width)
        self.from_latent = keras.layers.Dense(
            math.prod(self.first_map), dtype=policy, name="from_latent"
        )
        self.to_image = convolution(
            self.config.channels, 3, gain=1.0, dtype=policy, name="to_image"
        )

    def build(self, input_shape):
        self.from_latent.build((None, self.config.latent_dim))
        self.to_image.build(self._build_blocks((None, *self.first_map)))

    def call(self, latents, draws=None):
        x = ops.reshape(self.from_latent(latents), (-1, *self.first_map))
        images = ops.cast(self.to_image(self._run_blocks(x)), "float32")
        if self.config.output_activation == "tanh":
            images = ops.tanh(images)
        return images  # (B, H, W, C)

    def compute_output_shape(self, input_shape):
        size = self.config.image_size
        return (input_shape[0], size, size, self.config.channels)


@keras.saving.register_keras_serializable(package="transgan_tf")
class ResNetDiscriminator(ResNet):
    """Judges images, as `transgan_tf.discriminator.Discriminator` is called.

    Call arguments:
        images: `(B, H, W, C)` in [-1, 1], already augmented.
        draws: not used.

    Returns:
        Logits `(B, 1)` float32.
    """

    config_class = DiscriminatorConfig

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        # The losses are differences of logits: never in half precision.
        self.head = keras.layers.Dense(1, dtype="float32", name="head")

    def build(self, input_shape):
        self.head.build((None, self._build_blocks(input_shape)[-1]))

    def call(self, images, draws=None):
        x = ops.cast(self._run_blocks(images), "float32")  # (B, H, W, D)
        return self.head(ops.mean(x, axis=(1, 2)))  # (B, 1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)
