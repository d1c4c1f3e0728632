"""The multi-scale discriminator: the image is embedded again at each scale."""

import dataclasses

import keras
from keras import ops

from transgan_tf.checked import from_dict
from transgan_tf.layers import ClassToken
from transgan_tf.layers import PatchEmbedding
from transgan_tf.layers import PositionEmbedding
from transgan_tf.layers import TokenPooling
from transgan_tf.layers import TransformerBlock
from transgan_tf.layers.block import make_blocks
from transgan_tf.layers.block import run_blocks
from transgan_tf.layers.initializers import dense
from transgan_tf.layers.norm import make_norm
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.remat import call_layer


class DiscriminatorStage(keras.layers.Layer):
    """Pooled tokens joined by the image's next patches, positions, blocks.

    The first stage has patches alone, a later one without `multi_scale` pooled
    tokens alone.

    Call arguments:
        images: `(B, H, W, C)`.
        x: tokens of the stage before, `(B, 4*N, D')`; None in the first.
        draws: see `Discriminator`.

    Returns:
        Tokens `(B, N, D)`.
    """

    def __init__(self, config, index, **kwargs):
        super().__init__(**kwargs)
        stage = config.stages[index]
        policy = self.dtype_policy
        self.patches = None
        if config.embedding_width(index):
            self.patches = PatchEmbedding(
                config.patch_size(index),
                config.embedding_width(index),
                dtype=policy,
                name="patches",
            )
        self.pooling = None
        if index:
            side = config.stages[index - 1].resolution
            self.pooling = TokenPooling(
                side, side, dtype=policy, name="pooling"
            )
        self.position = PositionEmbedding(dtype=policy, name="position")
        self.blocks = make_blocks(config, stage, "normal", policy)
        self.output_tokens = (stage.resolution**2, stage.width)
        self.stage_name = config.stage_name(stage)

    def build(self, input_shape):
        if self.patches is not None:
            self.patches.build(input_shape)
        shape = (input_shape[0], *self.output_tokens)
        if self.pooling is not None:
            # Under a strategy `fit` would call the model to build the rest.
            self.pooling.build(None)
        for layer in (self.position, *self.blocks):
            layer.build(shape)

    def call(self, images, x=None, draws=None):
        parts = []
        if self.pooling is not None:
            parts.append(self.pooling(x))
        if self.patches is not None:
            parts.append(self.patches(images))
        x = ops.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        x = self.position(x)
        return run_blocks(self.blocks, x, self.stage_name, draws)

    def compute_output_shape(self, images_shape, x_shape=None):
        return (images_shape[0], *self.output_tokens)


@keras.saving.register_keras_serializable(package="transgan_tf")
class Discriminator(keras.Model):
    """Judges images at several scales.

    Patches of side P make the first stage's tokens. Before each later stage
    the tokens are pooled 2 x 2 and, with `multi_scale`, joined, channel to
    channel, by the same image's patches of twice the side. A CLS token then
    attends to the last stage's tokens in one block without relative positions.

    Args:
        config: `DiscriminatorConfig`, or a dict of its fields.

    Call arguments:
        images: `(B, H, W, C)` in [-1, 1], already augmented.
        draws: `transgan_tf.randomness.Draws` of the batch, for attention noise;
            None for none.

    Returns:
        Logits `(B, 1)` float32.

    Reference:
        TransGAN (https://arxiv.org/abs/2102.07074), section 3.1; the authors'
        `ViT_custom_scale2_rp_noise.py` and `ViT_scale3_local_new_rp.py`.
    """

    def __init__(self, config, **kwargs):
        super().__init__(**kwargs)
        # === Config ===
        if isinstance(config, dict):
            config = from_dict(DiscriminatorConfig, config)
        config.require_architecture("transformer")
        self.config = config
        # === Layers ===
        policy = self.dtype_policy
        self.stages = [
            DiscriminatorStage(
                config, index, dtype=policy, name=f"stage_{index}"
            )
            for index in range(len(config.stages))
        ]
        self.class_token = ClassToken(dtype=policy, name="class_token")
        self.class_block = TransformerBlock(
            config.heads,
            mlp_ratio=config.mlp_ratio,
            norm=config.norm,
            attention_noise=config.attention_noise,
            initialization="normal",
            dtype=policy,
            name="class_block",
        )
        self.norm = make_norm(config.norm, dtype=policy, name="norm")
        # The losses are differences of logits: never in half precision.
        self.head = dense(
            1,
            config.stages[-1].width,
            "normal",
            dtype="float32",
            name="head",
        )

    def build(self, input_shape):
        for stage in self.stages:
            stage.build(input_shape)
        last = self.config.stages[-1]
        self.class_token.build((None, last.resolution**2, last.width))
        shape = (None, last.resolution**2 + 1, last.width)
        self.class_block.build(shape)
        self.norm.build(shape)
        self.head.build((None, last.width))

    def call(self, images, draws=None):
        x = None
        for number, stage in enumerate(self.stages):
            x = stage(images, x=x, draws=draws and draws.fold_in(number))
        last = draws and draws.fold_in(len(self.stages))
        x = self.class_token(x)  # (B, 1+N, D)
        name = self.config.stage_name(self.config.stages[-1])
        x = call_layer(self.class_block, x, stage=name, draws=last)
        return self.head(self.norm(x)[:, 0])  # (B, 1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1)

    def get_config(self):
        config = super().get_config()
        config.update({"config": dataclasses.asdict(self.config)})
        return config
