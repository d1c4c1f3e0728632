"""gRPC, by TensorFlow Serving's messages."""

import time

import grpc
from google.protobuf.message import DecodeError

from serving import messages
from serving.client import errors

# Replies above gRPC's usual 4 MiB: five images of 256 px as float32.
_GRPC_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A server that starts is noticed by the next try.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class Grpc:
    """A server's gRPC, past any proxy; `predict` and `status` are as of `Rest`.

    Args:
        address: as given, for messages.
        target: such as `localhost:8500`.
    """

    def __init__(self, address: str, target: str):
        self.address = address
        self._channel = grpc.insecure_channel(target, _GRPC_OPTIONS)

    def predict(self, model, version, signature, inputs, deadline):
        request = messages.PredictRequest()
        _specify(request, model, version)
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(messages.to_tensor(array))
        method = "PredictionService/Predict"
        reply = self._ask(method, request, messages.PredictResponse, deadline)
        try:
            (output,) = reply.outputs.values()
            return messages.from_tensor(output)
        except (MemoryError, ValueError):
            raise self._garbage() from None

    def status(self, model, version, deadline) -> list[dict]:
        request = messages.StatusRequest()
        _specify(request, model, version)
        method = "ModelService/GetModelStatus"
        reply = self._ask(method, request, messages.StatusResponse, deadline)
        return [
            {
                "version": known.version,
                "state": messages.STATES.get(known.state, "UNKNOWN"),
                "error": known.status.error_message,
            }
            for known in reply.model_version_status
        ]

    def _ask(self, method, request, reply_class, deadline):
        # Replies are parsed here: gRPC would log what it cannot parse.
        call = self._channel.unary_unary(f"/tensorflow.serving.{method}")
        try:
            reply = call(
                request.SerializeToString(),
                timeout=max(deadline - time.monotonic(), 0),
            )
            return reply_class.FromString(reply)
        except DecodeError:
            raise self._garbage() from None
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
        if code == "DEADLINE_EXCEEDED":
            raise errors.late(self.address)
        if "HTTP/2" in details:
            raise self._garbage("it does not speak HTTP/2")
        # The channel's own words; a server's have the same code.
        if "failed to connect" in details or "resolution failed" in details:
            reason = details.rsplit(": ", 1)[-1].rstrip("]")
            raise errors.unreachable(self.address, reason)
        raise errors.refused(self.address, code, details)

    def _garbage(self, detail="a reply of another form"):
        return errors.garbage(self.address, detail)

    def close(self) -> None:
        self._channel.close()


def _specify(request, model, version):
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
