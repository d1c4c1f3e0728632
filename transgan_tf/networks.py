"""The networks that configurations describe."""

from transgan_tf.discriminator import Discriminator
from transgan_tf.generator import Generator
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.resnet import ResNetDiscriminator
from transgan_tf.resnet import ResNetGenerator


def make_generator(
    config: GeneratorConfig, **kwargs
) -> Generator | ResNetGenerator:
    """Returns the generator of a configuration's architecture.

    Args:
        config: `GeneratorConfig`.
        **kwargs: passed to the network.
    """
    network = ResNetGenerator if config.is_resnet else Generator
    return network(config, **kwargs)


def make_discriminator(
    config: DiscriminatorConfig, **kwargs
) -> Discriminator | ResNetDiscriminator:
    """Returns the discriminator of a configuration's architecture.

    Args:
        config: `DiscriminatorConfig`.
        **kwargs: passed to the network.
    """
    network = ResNetDiscriminator if config.is_resnet else Discriminator
    return network(config, **kwargs)
