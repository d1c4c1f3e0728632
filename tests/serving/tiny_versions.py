"""Exported versions for tests of serving: small, quick, with known answers."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.export import write_saved_model
from serving.warmup import REQUESTS
from tests.serving.tiny_run import tiny_generator
from tests.tiny import smallest_config

WIDTH = smallest_config().generator.latent_dim


def export_version(folder, number: int) -> Path:
    """Writes a version of a tiny generator as the exporter does.

    Without warm-up requests; its weights' seed is the number.
    """
    path = Path(folder) / str(number)
    path.mkdir()
    write_saved_model(path, tiny_generator(number))
    return path


def write_warmup(version, **inputs) -> None:
    """Gives a version one warm-up request for `serving_default`."""
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = "warmed"
    for alias, value in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
    path = Path(version) / REQUESTS
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())


def known_latents(rows: int) -> np.ndarray:
    """Returns float32 `(rows, WIDTH)`, each row of its own."""
    numbers = np.random.default_rng(rows).normal(size=(rows, WIDTH))
    return numbers.astype("float32")
