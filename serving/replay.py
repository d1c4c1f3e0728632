"""Runs the warm-up requests of a version before it serves.

The first call of a signature takes the longest. TensorFlow Serving replays
`assets.extra/tf_serving_warmup_requests`, and a request that fails keeps the
version from serving.
"""

from pathlib import Path

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving import predict
from serving.errors import CallError
from serving.errors import invalid
from serving.servable import Servable
from serving.warmup import REQUESTS

MOST_REQUESTS = 1000
# A tensor of a warm-up request may have as much.
_MOST_BYTES = 2**30


def replay(servable: Servable, folder) -> int:
    """Runs a version's warm-up requests, one after the other.

    Args:
        servable: the loaded version.
        folder: the version's.

    Returns:
        How many there were; 0 without a file of them.

    Raises:
        CallError, tf.errors.OpError: a request fails, cannot be read, or
            there are more than `MOST_REQUESTS`.
    """
    path = Path(folder) / REQUESTS
    if not path.is_file():
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        count += 1
        if count > MOST_REQUESTS:
            raise invalid(
                "Number of warmup records exceeds the maximum "
                f"({MOST_REQUESTS}) at {path}"
            )
        _run(servable, record, path)
    return count


def _run(servable, record, path):
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except Exception:
        raise invalid(f"Failed to parse warmup record from {path}") from None
    kind = log.WhichOneof("log_type")
    if kind is None:
        return
    if kind != "predict_log":
        raise CallError(
            "UNIMPLEMENTED", f"Unsupported log_type for warmup: {kind}"
        )
    request = log.predict_log.request
    signature = predict.find_signature(
        servable, request.model_spec.signature_name
    )
    arrays = predict.read_inputs(signature, request.inputs, _MOST_BYTES)
    outputs = predict.filtered(signature, list(request.output_filter))
    servable.run(signature, arrays, outputs)
