"""Parameters of the convolutional pair, by formula, without TensorFlow."""

from transgan_tf.configs import DiscriminatorConfig
from transgan_tf.configs import GeneratorConfig


def generator_parameters(config: GeneratorConfig) -> int:
    """Counts the trainable numbers of `ResNetGenerator(config)`."""
    first, last = config.stages[0], config.stages[-1]
    units = first.resolution**2 * first.width
    count = (config.latent_dim + 1) * units
    count += _blocks(config, first.resolution, first.width)
    count += _norm(config, last.width)
    return count + _convolution(3, last.width, config.channels)


def discriminator_parameters(config: DiscriminatorConfig) -> int:
    """Counts the trainable numbers of `ResNetDiscriminator(config)`."""
    width = config.stages[-1].width
    count = _blocks(config, config.image_size, config.channels)
    # The first block leaves the image as it is.
    count -= _norm(config, config.channels)
    return count + _norm(config, width) + width + 1


def _blocks(config, resolution, inputs):
    """Counts the blocks that take a map of a resolution and a width."""
    count = 0
    for stage in config.stages:
        width = stage.width
        for _ in range(stage.depth):
            count += _convolution(3, inputs, width)
            count += _convolution(3, width, width)
            count += _norm(config, inputs) + _norm(config, width)
            if (resolution, inputs) != (stage.resolution, width):
                count += _convolution(1, inputs, width)
            resolution, inputs = stage.resolution, width
    return count


def _convolution(side, inputs, width):
    return side**2 * inputs * width + width


def _norm(config, width):
    return 2 * width if config.norm == "layer_norm" else 0
