"""What the REST and the gRPC interface have in common: the calls themselves.

Calls that compute are functions of a deadline and run in threads (`Runs`).
"""

import time
from dataclasses import dataclass

from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis import predict_pb2

from serving import predict
from serving import replies
from serving import tensors
from serving.errors import invalid
from serving.models import Model
from serving.monitoring import Metrics
from serving.runs import Runs
from serving.signatures import SERVING_DEFAULT

SIGNATURES = "signature_def"


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
        request_bytes: of a message or a body, also after decompression.
        rows: of a batch; 0 for as many as the version's memory allows.
        seconds: that a request over REST may take.
        client_seconds: for a client to send its request or take its reply.
    """

    request_bytes: int
    rows: int
    seconds: float
    client_seconds: float


class Service:
    """The calls, over one model.

    Args:
        model: `Model`.
        runs: where calls compute.
        metrics: what counts them.
        limits: `Limits`.
    """

    def __init__(
        self, model: Model, runs: Runs, metrics: Metrics, limits: Limits
    ):
        self.model = model
        self.runs = runs
        self.metrics = metrics
        self.limits = limits

    def predict(
        self, request: predict_pb2.PredictRequest, deadline: float | None
    ) -> predict_pb2.PredictResponse:
        """Answers Predict.

        Raises:
            CallError, tf.errors.OpError: the request cannot be answered.
        """
        require_spec(request)
        spec = request.model_spec
        with self.model.use(spec) as version:
            key = spec.signature_name or SERVING_DEFAULT
            signature = predict.find_signature(version.servable, key)
            arrays = predict.read_inputs(
                signature, request.inputs, self.limits.request_bytes
            )
            names = predict.filtered(signature, list(request.output_filter))
            outputs = self._run(version, signature, arrays, names, deadline)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.signature_name = key
        response.model_spec.version.value = version.number
        for alias, array in outputs.items():
            response.outputs[alias].CopyFrom(predict.to_message(array))
        return response

    def predict_json(
        self, spec: model_pb2.ModelSpec, body: bytes, deadline: float | None
    ) -> bytes:
        """Answers Predict in JSON; raises as `predict` does."""
        document = tensors.parse(body)
        key = tensors.signature_name(document) or SERVING_DEFAULT
        with self.model.use(spec) as version:
            signature = version.servable.all_signatures.get(key)
            if signature is None:
                raise invalid(
                    f'Serving signature name: "{key}" not found in signature '
                    "def"
                )
            if not signature.inputs:
                raise invalid(f"Failed to get input map for signature: {key}")
            # Before they become arrays.
            rows = tensors.count_rows(document, signature.inputs)
            predict.check_rows(rows, self.limits.rows or version.most_rows)
            arrays = tensors.read(document, signature.inputs)
            form = tensors.request_format(document)
            names = sorted(signature.outputs)
            outputs = self._run(version, signature, arrays, names, deadline)
        return replies.write(outputs, form)

    def _run(self, version, signature, arrays, names, deadline):
        rows = {name: a.shape[0] for name, a in arrays.items() if a.ndim}
        predict.check_rows(rows, self.limits.rows or version.most_rows)
        timeout_ms = predict.time_left_ms(deadline)
        started = time.perf_counter()
        outputs = version.servable.run(signature, arrays, names, timeout_ms)
        seconds = time.perf_counter() - started
        self.metrics.run_took(seconds, self.model.name)
        return outputs

    def refuse_examples(
        self, spec: model_pb2.ModelSpec, key: str, kind: str
    ) -> None:
        """Answers Classify and Regress, which a generator's signatures lack.

        Args:
            spec: of the request.
            key: of the signature, or "" for the default.
            kind: "classification" or "regression".

        Raises:
            CallError: always, as TensorFlow Serving for such a signature.
        """
        key = key or SERVING_DEFAULT
        with self.model.use(spec) as version:
            signature = version.servable.all_signatures.get(key)
        if signature is None:
            raise invalid(f"No signature was found with the name: {key}")
        if len(signature.inputs) != 1:
            raise invalid("Expected one input Tensor.")
        raise invalid(
            f"No {kind} inputs found in SignatureDef: {signature}".strip()
        )

    def status(
        self, spec: model_pb2.ModelSpec
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Answers GetModelStatus; a label is ignored."""
        asked = spec.version.value if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self.model.states(spec.name, asked):
            row = response.model_version_status.add(version=number)
            row.state = row.State.Value(state)
            row.status.SetInParent()
            if error is not None:
                row.status.error_code = _code_number(row.status, error.code)
                row.status.error_message = error.message
        return response

    def metadata(
        self, spec: model_pb2.ModelSpec
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answers GetModelMetadata: the signatures."""
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self.model.use(spec) as version:
            for key, signature in version.servable.all_signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = version.number
        response.metadata[SIGNATURES].Pack(signatures)
        return response


def require_spec(request) -> None:
    """Raises INVALID_ARGUMENT for a request that names no model."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _code_number(status, code):
    field = status.DESCRIPTOR.fields_by_name["error_code"]
    return field.enum_type.values_by_name[code].number
