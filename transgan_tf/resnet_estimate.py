"""Parameters and memory of the convolutional pair, by formula."""

from collections.abc import Collection
from collections.abc import Iterator

from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import NetworkConfig
from transgan_tf.network_configs import Stage

# Measured, see `kept_bytes`.
_XLA, _NO_XLA, _OUTPUT = 3.7, 7.0, 1.9


def generator_parameters(config: GeneratorConfig) -> int:
    """Counts the trainable numbers of `ResNetGenerator(config)`."""
    first, last = config.stages[0], config.stages[-1]
    count = (config.latent_dim + 1) * first.resolution**2 * first.width
    count += _all_blocks(config) + _norm(config, last.width)
    return count + _convolution(3, last.width, config.channels)


def discriminator_parameters(config: DiscriminatorConfig) -> int:
    """Counts the trainable numbers of `ResNetDiscriminator(config)`."""
    width = config.stages[-1].width
    # The image is not normalized.
    count = _all_blocks(config) - _norm(config, config.channels)
    return count + _norm(config, width) + width + 1


def blocks(config: NetworkConfig) -> Iterator[tuple[Stage, int, int]]:
    """Yields each block's stage, and resolution and width of its input."""
    if isinstance(config, DiscriminatorConfig):
        resolution, inputs = config.image_size, config.channels
    else:
        first = config.stages[0]
        resolution, inputs = first.resolution, first.width
    for stage in config.stages:
        for _ in range(stage.depth):
            yield stage, resolution, inputs
            resolution, inputs = stage.resolution, stage.width


def _all_blocks(config):
    """Counts the blocks as if none took an image."""
    count = 0
    for stage, resolution, inputs in blocks(config):
        width = stage.width
        count += _convolution(3, inputs, width) + _convolution(3, width, width)
        count += _norm(config, inputs) + _norm(config, width)
        if (resolution, inputs) != (stage.resolution, width):
            count += _convolution(1, inputs, width)
    return count


def _convolution(side, inputs, width):
    return side**2 * inputs * width + width


def _norm(config, width):
    return 2 * width if config.norm == "layer_norm" else 0


def kept_bytes(
    config: NetworkConfig, recomputed: Collection[str], jit: bool
) -> tuple[float, float]:
    """Estimates what one image's forward pass keeps for its gradient.

    A block keeps its map, of the larger of its two resolutions, 3.7 times under
    XLA and 7 times without; one that is recomputed keeps its output alone, 1.9
    times. All in 4 bytes a number: on a CPU, half precision took no less.
    `docs/memory.md` compares it with what was measured.

    Args:
        config: of one of the networks.
        recomputed: names of the stages whose blocks are recomputed.
        jit: whether XLA compiles the gradients.

    Returns:
        Bytes kept all along, and bytes made again for one block at a time.
    """
    kept, again = 0.0, 0.0
    for stage, resolution, _ in blocks(config):
        side = max(stage.resolution, resolution)
        inside = 4 * side**2 * stage.width * (_XLA if jit else _NO_XLA)
        if config.stage_name(stage) in recomputed:
            kept += 4 * stage.resolution**2 * stage.width * _OUTPUT
            again = max(again, inside)
        else:
            kept += inside
    return kept, again
