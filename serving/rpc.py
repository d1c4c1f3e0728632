"""The gRPC interface, on TensorFlow Serving's own stubs."""

import asyncio
import logging
import time

import grpc
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import inference_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2

from serving.errors import CallError
from serving.errors import from_exception
from serving.errors import invalid
from serving.service import SIGNATURES
from serving.service import Service
from serving.service import require_spec

MOST_MESSAGE = 1024

log = logging.getLogger(__name__)


class Calls:
    """What both services share: errors as statuses, metrics, deadlines."""

    def __init__(self, service: Service):
        self.service = service

    async def answer(self, context, work, api=None, model=""):
        """Awaits a reply; an error ends the call with its status.

        Args:
            context: of the call.
            work: awaitable of the reply.
            api: name for the metrics; None for a call that is not counted.
            model: name for the metrics.
        """
        started = time.perf_counter()
        failure = None
        try:
            response = await work
        except asyncio.CancelledError:
            self._count(api, model, "CANCELLED")
            raise
        except Exception as error:
            failure = from_exception(error)
            if failure.code == "INTERNAL":
                log.exception("a call failed")
        if failure is not None:
            self._count(api, model, failure.code)
            code = grpc.StatusCode[failure.code]
            await context.abort(code, cut(failure.message))
        self._count(api, model, "OK", time.perf_counter() - started)
        return response

    def _count(self, api, model, code, seconds=None):
        if api is None:
            return
        # Any name that clients invent would stay in memory.
        model = model if model == self.service.model.name else ""
        self.service.metrics.count(model, code)
        if seconds is not None:
            self.service.metrics.request_took(seconds, model, api, "GRPC")

    async def call(self, context, function):
        """Runs a function of the deadline in a thread."""
        with self.service.runs.place():
            seconds = context.time_remaining()
            return await self.service.runs.call(function, seconds)


def cut(message: str) -> str:
    """Returns a message that a status can carry, as TensorFlow Serving's."""
    if len(message) <= MOST_MESSAGE:
        return message
    return message[:MOST_MESSAGE] + "...TRUNCATED"


class Prediction(Calls, prediction_service_pb2_grpc.PredictionServiceServicer):
    """`tensorflow.serving.PredictionService`."""

    async def Predict(self, request, context):
        work = self.call(
            context, lambda deadline: self.service.predict(request, deadline)
        )
        name = request.model_spec.name
        return await self.answer(context, work, "Predict", name)

    async def GetModelMetadata(self, request, context):
        return await self.answer(context, self._metadata(request))

    async def _metadata(self, request):
        require_spec(request)
        if not request.metadata_field:
            raise invalid(
                "GetModelMetadataRequest must specify at least one "
                "metadata_field"
            )
        for field in request.metadata_field:
            if field != SIGNATURES:
                raise invalid(f"Metadata field {field} is not supported")
        return self.service.metadata(request.model_spec)

    async def Classify(
        self, request: classification_pb2.ClassificationRequest, context
    ):
        work = self._refuse(request, "classification")
        name = request.model_spec.name
        return await self.answer(context, work, "Classify", name)

    async def Regress(self, request: regression_pb2.RegressionRequest, context):
        work = self._refuse(request, "regression")
        name = request.model_spec.name
        return await self.answer(context, work, "Regress", name)

    async def MultiInference(
        self, request: inference_pb2.MultiInferenceRequest, context
    ):
        return await self.answer(context, self._refuse_tasks(request))

    async def _refuse_tasks(self, request):
        for task in request.tasks:
            await self._refuse(task, "classification")
        raise invalid("Inference request must have at least one task")

    async def _refuse(self, request, kind):
        require_spec(request)
        spec = request.model_spec
        self.service.refuse_examples(spec, spec.signature_name, kind)


class ModelService(Calls, model_service_pb2_grpc.ModelServiceServicer):
    """`tensorflow.serving.ModelService`."""

    async def GetModelStatus(self, request, context):
        return await self.answer(context, self._status(request))

    async def _status(self, request):
        require_spec(request)
        return self.service.status(request.model_spec)

    async def HandleReloadConfigRequest(self, request, context):
        return await self.answer(context, self._refuse_reload())

    async def _refuse_reload(self):
        raise CallError(
            "UNIMPLEMENTED",
            "This server serves the one folder that it was started with; "
            "tensorflow_model_server changes its models while it runs",
        )


def make_server(service: Service) -> grpc.aio.Server:
    """Returns a server of both services, without a port."""
    server = grpc.aio.server(
        # Above the places, whose lack is told as UNAVAILABLE; these calls are
        # RESOURCE_EXHAUSTED, before their messages are read.
        maximum_concurrent_rpcs=2 * service.runs.places,
        options=[
            ("grpc.max_receive_message_length", service.limits.request_bytes),
            ("grpc.max_send_message_length", -1),
            # Two servers must not share a port unseen.
            ("grpc.so_reuseport", 0),
            (
                "grpc.server_handshake_timeout_ms",
                round(service.limits.client_seconds * 1000),
            ),
            # Finds clients that are gone without a word.
            ("grpc.keepalive_time_ms", 60_000),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Prediction(service), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(service), server
    )
    return server
