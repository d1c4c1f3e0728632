"""TransGAN in Keras 3: the model, its training and its sampling.

The public names load on first use, so that `import transgan_tf`, the
configurations and the record encoding stay free of TensorFlow: Beam workers
and light clients import them too.
"""

import importlib

from transgan_tf.version import __version__

_HOMES = {
    "DiffAugment": "transgan_tf.augment",
    "Discriminator": "transgan_tf.discriminator",
    "Generator": "transgan_tf.generator",
    "TransGAN": "transgan_tf.gan",
    "get_preset": "transgan_tf.presets",
    "load_generator": "transgan_tf.checkpoints",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__():
    return sorted(__all__)
