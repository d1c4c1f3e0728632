"""Warm-up requests, which a server answers before it calls a version ready.

They lie where TensorFlow Serving looks for them. The first call of a graph
takes longer than the others; and a version that cannot answer is not served.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from serving.signatures import INTERPOLATE
from serving.signatures import SAMPLE
from serving.signatures import SERVING_DEFAULT
from transgan_tf.checked import UserError
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.randomness import latents
from transgan_tf.sampling import images_at_once

# Where TensorFlow Serving looks for them in a version's folder.
REQUESTS = Path("assets.extra", "tf_serving_warmup_requests")
# Of the larger batch, where the images are small.
MOST_ROWS = 8


def example_inputs(latent_dim: int, rows: int) -> dict:
    """Returns valid inputs of every signature, different in each row.

    Args:
        latent_dim: width of a latent.
        rows: how many, at least 1.

    Returns:
        Arrays by signature and input.
    """
    seeds = np.arange(rows, dtype="int64")
    truncation = np.linspace(1, 0.5, rows, dtype="float32")
    position = np.linspace(0.25, 1, rows, dtype="float32")
    return {
        SERVING_DEFAULT: {"latents": latents(seeds, latent_dim).numpy()},
        SAMPLE: {"seed": seeds, "truncation": truncation},
        INTERPOLATE: {
            "start": seeds,
            "stop": seeds + 7,
            "position": position,
            "truncation": truncation,
        },
    }


def write_requests(folder, name: str, config: GeneratorConfig) -> Path:
    """Writes requests of every signature, at batch 1 and at a larger one.

    Args:
        folder: of the version.
        name: of the model.
        config: of its generator.

    Returns:
        The file.

    Raises:
        UserError: the messages of TensorFlow Serving are not installed.
    """
    path = Path(folder, REQUESTS)
    path.parent.mkdir()
    larger = max(2, min(MOST_ROWS, images_at_once(config)))
    with tf.io.TFRecordWriter(str(path)) as writer:
        for rows in (1, larger):
            examples = example_inputs(config.latent_dim, rows)
            for signature, inputs in examples.items():
                writer.write(_request(name, signature, inputs))
    return path


def _request(name, signature, inputs):
    """Returns a serialized `PredictionLog`."""
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        raise UserError(
            "exporting needs a package more: pip install 'transgan-tf[serving]'"
        ) from None
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    # A map has no order of its own.
    return log.SerializeToString(deterministic=True)
