"""Arithmetic of a configuration, by formula, without TensorFlow.

Counted are the matrix products of the networks, a multiplication and an
addition as 2 FLOPs, as if nothing were computed twice. Softmax, GELU, norms,
biases, upsampling, augmentation and optimizers are not: next to the products
they have few operations, though not always little time.
"""

from dataclasses import dataclass

from transgan_tf.configs import Config
from transgan_tf.network_configs import NYSTROM_ITERATIONS
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.resnet_estimate import blocks


@dataclass(frozen=True)
class Products:
    """FLOPs of the products of one pass of one image.

    Attributes:
        weights: of activations by weights.
        attention: of activations by activations.
    """

    weights: float = 0
    attention: float = 0

    def __add__(self, other: "Products") -> "Products":
        return Products(
            self.weights + other.weights, self.attention + other.attention
        )

    def times(self, weights: float, attention: float) -> float:
        """Returns the FLOPs of so many products for each one of the pass."""
        return weights * self.weights + attention * self.attention


# How many products a pass takes for each of its own. The gradient of a product
# of two factors is a product for each factor that needs one.
FORWARD = (1, 1)
# Of inputs and weights.
GRADIENT = (2, 2)
# Of inputs alone: weights need none, both factors of attention do.
INPUT_GRADIENT = (1, 2)
# Of the products of a pass and of those of its input gradient.
SECOND_GRADIENT = (2 + 2, 2 + 4)


def generator_products(config: GeneratorConfig) -> Products:
    """Returns the products of one image's pass through a generator."""
    first, last = config.stages[0], config.stages[-1]
    total = _dense(1, config.latent_dim, first.resolution**2 * first.width)
    if config.is_resnet:
        total += _residual_blocks(config)
        return total + _convolution(
            last.resolution, 3, last.width, config.channels
        )
    for stage in config.stages:
        total += _stage(config, stage)
    return total + _dense(last.resolution**2, last.width, config.channels)


def discriminator_products(config: DiscriminatorConfig) -> Products:
    """Returns the products of one image's pass through a discriminator."""
    if config.is_resnet:
        last = config.stages[-1]
        return _residual_blocks(config) + _dense(1, last.width, 1)
    total = Products()
    for index, stage in enumerate(config.stages):
        pixels = config.patch_size(index) ** 2 * config.channels
        width = config.embedding_width(index)
        total += _dense(stage.resolution**2, pixels, width)
        total += _stage(config, stage)
    last = config.stages[-1]
    tokens = last.resolution**2 + 1  # With the CLS token.
    total += _dense_layers(config, tokens, last.width)
    total += Products(attention=4 * tokens**2 * last.width)
    return total + _dense(1, last.width, 1)


def _residual_blocks(config):
    total = Products()
    for stage, resolution, inputs in blocks(config):
        smaller, larger = sorted((resolution, stage.resolution))
        total += _convolution(larger, 3, inputs, stage.width)
        total += _convolution(larger, 3, stage.width, stage.width)
        if (resolution, inputs) != (stage.resolution, stage.width):
            total += _convolution(smaller, 1, inputs, stage.width)
    return total


def _convolution(resolution, side, inputs, width):
    return _dense(resolution**2, side**2 * inputs, width)


def _stage(config, stage):
    tokens = stage.resolution**2
    layers = _dense_layers(config, tokens, stage.width)
    if config.attention_of(stage) == "axis":
        layers += _attention_layers(tokens, stage.width)
    total = Products(attention=sum(_attention(config, stage)))
    for _ in range(stage.depth):
        total += layers
    return total


def _dense(rows, inputs, units):
    return Products(weights=2 * rows * inputs * units)


def _dense_layers(config, tokens, width):
    """Returns the products of the weights of a block with one attention."""
    hidden = config.mlp_ratio * width
    mlp = _dense(tokens, width, hidden) + _dense(tokens, hidden, width)
    return mlp + _attention_layers(tokens, width)


def _attention_layers(tokens, width):
    return _dense(tokens, width, 3 * width) + _dense(tokens, width, width)


def _attention(config, stage):
    """Yields the FLOPs of each block's queries, keys and values."""
    if config.attention_of(stage) != "nystrom":
        for scores in config.attention_scores(stage):
            yield 4 * scores / config.heads * stage.width
        return
    tokens, landmarks = stage.resolution**2, config.landmarks
    # Scores to, from and among landmarks, and values by way of them.
    block = stage.width * (8 * tokens * landmarks + 4 * landmarks**2)
    inverse = NYSTROM_ITERATIONS * 4 * 2 * landmarks**3
    yield from [block + config.heads * inverse] * stage.depth


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of the parts of a training step.

    Attributes:
        sampling: making as many images as one discriminator update has.
        discriminator: one update.
        generator: the generator's update.
        step: all updates of a step.
    """

    sampling: float
    discriminator: float
    generator: float
    step: float


def step_flops(config: Config) -> StepFlops:
    """Counts what a step's algorithm takes, whatever computes it.

    A discriminator update makes fakes, judges real and fake images with their
    gradients, and differentiates a third pass twice if there is a penalty. A
    generator update has the gradient of both networks, of the discriminator's
    that of its inputs alone.

    Args:
        config: `Config`.

    Returns:
        `StepFlops`.
    """
    training = config.training
    drawn = generator_products(config.generator)
    judged = discriminator_products(config.discriminator)
    sampling = drawn.times(*FORWARD)
    with_gradient = judged.times(*FORWARD) + judged.times(*GRADIENT)
    discriminator = sampling + 2 * with_gradient
    if training.loss != "hinge" and training.penalty_weight > 0:
        discriminator += judged.times(*FORWARD) + judged.times(*INPUT_GRADIENT)
        discriminator += judged.times(*SECOND_GRADIENT)
    generator = drawn.times(*FORWARD) + drawn.times(*GRADIENT)
    generator += judged.times(*FORWARD) + judged.times(*INPUT_GRADIENT)
    sampling *= training.batch_size
    discriminator *= training.batch_size
    generator *= training.generator_batch_size
    step = training.n_critic * discriminator + generator
    return StepFlops(sampling, discriminator, generator, step)
