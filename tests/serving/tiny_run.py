"""Runs to export: tiny networks of given weights, without training."""

import types
from pathlib import Path

import keras
import tensorflow as tf

from tests.tiny import smallest_config
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import network_state
from transgan_tf.generator import Generator


class Probe:
    """In place of a generator: its pixels are the bytes of the latents."""

    config = types.SimpleNamespace(latent_dim=3)

    def __call__(self, z):
        pixels = tf.bitcast(z, tf.uint8)  # (N, 3, 4)
        return tf.cast(pixels, tf.float32)[..., None] / 127.5 - 1.0


def tiny_generator(seed=0, **changes):
    """Returns a built 12 x 12 px generator whose images reach beyond [-1, 1].

    Its attention would be noisy.
    """
    config = smallest_config().generator
    keras.utils.set_random_seed(seed)
    generator = Generator(config, name="ema_generator", **changes)
    generator.build((None, config.latent_dim))
    for variable in generator.variables:
        if "noise" in variable.path:
            variable.assign(3.0)
        if "to_image/kernel" in variable.path:
            variable.assign(40 * variable.numpy())
    return generator


def write_run(run_dir, seed=0, step=2, dataset="", change=None):
    """Writes what of a run an export reads; returns its folder.

    Args:
        run_dir: may be a run already, which gets a checkpoint more.
        seed: of the weights.
        step: of the checkpoint.
        dataset: as training fills it in.
        change: called with the arrays by name, which it may change.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    config = smallest_config().override([f"dataset={dataset}"])
    (run_dir / "config.json").write_text(config.to_json())
    state = network_state("ema_generator", tiny_generator(seed))
    arrays = {name: variable.numpy() for name, variable in state.items()}
    if change is not None:
        change(arrays)
    CheckpointFolder(run_dir / "checkpoints").write(step, arrays)
    return run_dir
