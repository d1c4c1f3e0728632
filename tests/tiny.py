"""A tiny configuration for tests: every mechanism of the networks, no size.

The generator has a first stage, a bicubic and a pixel-shuffle one; the
discriminator has two scales, windows and a global block. Widths are small and,
where the rules allow it, odd.
"""

from transgan_tf.configs import Config
from transgan_tf.configs import TrainingConfig
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage

GENERATOR = {
    "stages": (
        Stage(3, 24, 1),
        Stage(6, 24, 1, window=2, upsample="bicubic"),
        Stage(12, 6, 1, window=4, upsample="pixel_shuffle"),
    ),
    "heads": 3,
    "mlp_ratio": 2,
    "norm": "token_scaling",
    "latent_dim": 5,
}
DISCRIMINATOR = {
    "stages": (Stage(6, 9, 2, window=3, global_blocks=1), Stage(3, 15, 1)),
    "heads": 3,
    "mlp_ratio": 2,
    "image_size": 12,
}
TRAINING = {
    "steps": 3,
    "batch_size": 4,
    "generator_batch_factor": 2,
    "n_critic": 2,
    "generator_learning_rate": 1e-3,
    "discriminator_learning_rate": 1e-3,
    "ema_images": 100,
    "ema_warmup": 0.5,
    "jit": False,
    "strategy": "none",
}


def tiny_generator(**changes):
    return GeneratorConfig(**GENERATOR | changes)


def tiny_discriminator(**changes):
    return DiscriminatorConfig(**DISCRIMINATOR | changes)


def tiny_config(generator=None, discriminator=None, **training):
    """Returns a 12 x 12 px `Config`.

    Args:
        generator, discriminator: dicts of fields to change.
        **training: fields of the training configuration to change.
    """
    return Config(
        "tiny",
        tiny_generator(**generator or {}),
        tiny_discriminator(**discriminator or {}),
        TrainingConfig(**TRAINING | training),
    )


# For whole steps, whose tracing takes the longest of all tests: one block each.
SMALLEST_GENERATOR = {
    "stages": (
        Stage(6, 8, 1, window=3),
        Stage(12, 2, 0, upsample="pixel_shuffle"),
    ),
    "heads": 2,
    "attention_noise": True,
}
SMALLEST_DISCRIMINATOR = {
    "stages": (Stage(3, 10, 1),),
    "heads": 2,
    "attention_noise": True,
}


def smallest_config(generator=None, discriminator=None, **training):
    """Returns a `Config` as `tiny_config` does, of smaller networks."""
    return tiny_config(
        SMALLEST_GENERATOR | (generator or {}),
        SMALLEST_DISCRIMINATOR | (discriminator or {}),
        **training,
    )
