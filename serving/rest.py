"""The REST interface: TensorFlow Serving's routes, replies and statuses."""

import asyncio
import json
import logging
import re
import time
import urllib.parse

from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import model_pb2

from serving import monitoring
from serving import tensors
from serving.errors import HTTP_STATUS
from serving.errors import from_exception
from serving.errors import invalid
from serving.service import SIGNATURES
from serving.service import Service

_VERSION = r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(
    rf"(?i)/v1/models/(?P<model>[^/:]+){_VERSION}"
    ":(?P<method>classify|regress|predict)"
)
_LOOK = re.compile(
    rf"(?i)/v1/models(?:/(?P<model>[^/:]+))?{_VERSION}(?P<method>/metadata)?"
)
_KINDS = {"classify": "classification", "regress": "regression"}

log = logging.getLogger(__name__)


class _Refused(Exception):
    """An answer with an HTTP status that no gRPC code has."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Rest:
    """Answers HTTP requests.

    Args:
        service: `Service`.
    """

    def __init__(self, service: Service):
        self.service = service

    def application(self) -> web.Application:
        """Returns an application with one handler for all paths."""
        application = web.Application(
            client_max_size=self.service.limits.request_bytes
        )
        application.router.add_route("*", "/{path:.*}", self.handle)
        return application

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers a request, and cuts a client that does not take the reply."""
        response = await self._respond(request)
        try:
            async with asyncio.timeout(self.service.limits.client_seconds):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _respond(self, request):
        path = request.rel_url.raw_path
        if path == monitoring.PATH and request.method == "GET":
            text = self.service.metrics.text()
            return web.Response(text=text, content_type="text/plain")
        if not re.fullmatch("(?is)/v1/.*", path):
            return web.Response(
                status=404, text=_NO_PAGE, content_type="text/html"
            )
        if request.method == "OPTIONS":
            allowed = re.search("https?://", request.headers.get("Origin", ""))
            return _reply(200 if allowed else 400, b"")
        return await self._answer(request, path)

    async def _answer(self, request, path):
        started = time.perf_counter()
        model = method = ""
        try:
            match = _match(request.method, path)
            model = _unquote(match["model"] or "")
            method = (match["method"] or "").lower()
            body = await self._act(request, match, model, method)
        except _Refused as error:
            self._count(model, "INVALID_ARGUMENT")
            return _error(error.status, str(error))
        except asyncio.CancelledError:
            self._count(model, "CANCELLED")
            raise
        except ConnectionError:
            raise
        except Exception as error:
            failure = from_exception(error)
            if failure.code == "INTERNAL":
                log.exception("a request failed")
            self._count(model, failure.code)
            return _error(HTTP_STATUS[failure.code], failure.message)
        self._count(model, "OK", method, time.perf_counter() - started)
        return _reply(200, body)

    def _count(self, model, code, method="", seconds=None):
        # Any name that clients invent would stay in memory.
        model = model if model == self.service.model.name else ""
        self.service.metrics.count(model, code)
        if seconds is not None:
            self.service.metrics.request_took(seconds, model, method, "REST")

    async def _act(self, request, match, model, method):
        """Returns the body of the reply."""
        if not model:
            raise invalid("Missing model name in request.")
        spec = _spec(model, match["version"], match["label"])
        if method == "":
            return _to_json(self.service.status(spec))
        if method == "/metadata":
            return _metadata_json(self.service.metadata(spec))
        runs, seconds = self.service.runs, self.service.limits.seconds
        with runs.place():
            body = await self._read(request)
            if method == "predict":
                return await runs.call(
                    lambda left: self.service.predict_json(spec, body, left),
                    seconds,
                )
            return await runs.call(
                lambda _: self._refuse_examples(spec, body, method), seconds
            )

    def _refuse_examples(self, spec, body, method):
        document = tensors.parse(body)
        key = tensors.signature_name(document)
        if "examples" not in document:
            raise invalid(
                "When method is classify, key 'examples' is expected and was "
                "not found"
            )
        self.service.refuse_examples(spec, key, _KINDS[method])

    async def _read(self, request):
        """Returns the body, decompressed."""
        limits = self.service.limits
        too_large = _Refused(
            413, f"the body is larger than {limits.request_bytes} bytes"
        )
        if (request.content_length or 0) > limits.request_bytes:
            raise too_large
        try:
            async with asyncio.timeout(limits.client_seconds):
                return await request.read()
        except TimeoutError:
            # What else comes is no request.
            request.protocol.close()
            raise _Refused(
                408,
                f"the body did not come within {limits.client_seconds:g} "
                "seconds",
            ) from None
        except web.HTTPRequestEntityTooLarge:
            raise too_large from None
        except web.RequestPayloadError:
            request.protocol.close()
            raise _Refused(
                400, "the body is cut off or not compressed as its header says"
            ) from None


def _match(verb, path):
    pattern = {"POST": _CALL, "GET": _LOOK}.get(verb)
    match = pattern and pattern.fullmatch(path)
    if not match:
        raise invalid(f"Malformed request: {verb} {path}")
    return match


def _spec(model, version, label):
    spec = model_pb2.ModelSpec(name=model)
    if version is not None:
        if len(version) > 20 or int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if label is not None:
        spec.version_label = _unquote(label)
    return spec


def _unquote(text):
    """Decodes a part of a path; bytes that are no UTF-8 are replaced."""
    return urllib.parse.unquote(text).encode("utf-8", "replace").decode()


def _to_dict(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _to_json(message):
    return json.dumps(_to_dict(message), indent=1).encode()


def _metadata_json(response):
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURES].Unpack(signatures)
    document = {
        "model_spec": _to_dict(response.model_spec),
        "metadata": {SIGNATURES: _to_dict(signatures)},
    }
    return json.dumps(document, indent=1).encode()


def _error(status, message):
    # JSON has no place for bytes that are no text.
    message = message.encode("utf-8", "replace").decode()
    body = json.dumps({"error": message}, indent=4)
    return _reply(status, body.encode())


def _reply(status, body):
    return web.Response(
        status=status, body=body, content_type="application/json"
    )


_NO_PAGE = """<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1></body></html>
"""
