"""Small servers that answer as TensorFlow Serving does, on real sockets.

The images are arithmetic of their seeds. `faults` says what goes wrong with
the next requests, in order.
"""

import base64
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
from urllib.parse import unquote

import grpc
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

NAME = "digits/9"
VERSIONS = {3: "AVAILABLE", 2: "END"}
BUSY = "Batch scheduling failed: queue is full"
WRONG = "assertion failed: [truncation must be in (0, 1], got] [2]"
NODE = "\n\t [[{{node Assert/Assert}}]]"
HEIGHT, WIDTH = 3, 5


def pixels(seed, truncation, channels=1):
    """Returns the uint8 image `(3, 5, channels)` of a seed."""
    shape = (HEIGHT, WIDTH, channels)
    values = np.random.default_rng(int(seed)).integers(0, 256, shape)
    return np.round(values * float(truncation)).astype("uint8")


def between(start, stop, position, truncation):
    ends = pixels(start, truncation), pixels(stop, truncation)
    return np.round(ends[0] * (1 - position) + ends[1] * position)


def png(image):
    image = image.astype("uint8")
    image = image[..., 0] if image.shape[-1] == 1 else image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


class Fake:
    """What both servers share.

    Attributes:
        faults: names of what goes wrong with the next requests.
        asked: `(signature, version, rows)` of each request that came.
        released: set when requests that are held may end.
    """

    def __init__(self, channels=1, name=NAME):
        self.channels, self.name = channels, name
        self.faults = []
        self.asked = []
        self.released = threading.Event()
        self.address = None

    def next_fault(self):
        return self.faults.pop(0) if self.faults else None

    def pixels(self, seed, truncation):
        return pixels(seed, truncation, self.channels)

    def answer(self, signature, version, inputs):
        """Returns the name and the array of a signature's output."""
        rows = len(next(iter(inputs.values())))
        self.asked.append((signature, version, rows))
        if signature == "serving_default":
            return "images", draw(inputs["latents"])
        keys = ("start", "stop", "position", "truncation")
        if signature == "sample":
            keys = ("seed", "truncation")
        make = {2: self.pixels, 4: between}[len(keys)]
        rows = zip(*(inputs[key] for key in keys), strict=True)
        images = [make(*row) for row in rows]
        return "png_bytes", np.array([png(image) for image in images], object)


def draw(z):
    """Returns the float32 images of latents; a width of 7 makes large ones."""
    z = np.asarray(z, "float32")
    if z.shape[1] == 7:
        return np.broadcast_to(z[:, :1, None, None], (len(z), 256, 256, 3))
    return np.clip(z, -1, 1).reshape(len(z), 2, 3, 1)


def missing(fake, model, version):
    if model == fake.name and version in (None, 3):
        return None
    wanted = f"Latest({model})"
    if version is not None:
        wanted = f"Specific({model}, {version})"
    return f"Servable not found for request: {wanted}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ROUTE = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+))?(:predict)?")

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply()

    def do_POST(self):
        self.reply()

    def reply(self):
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = fake.next_fault()
        if fault is not None:
            fake.asked.append((fault, None, 0))
            getattr(self, f"be_{fault}")()
            return
        model, version, predict = self.ROUTE.fullmatch(self.path).groups()
        model = unquote(model)
        version = None if version is None else int(version)
        error = missing(fake, model, version)
        if error is not None:
            self.send(404, {"error": error})
        elif predict:
            asked = json.loads(body)
            _, output = fake.answer(
                asked["signature_name"], version, asked["inputs"]
            )
            if output.dtype == object:
                coded = [base64.b64encode(file).decode() for file in output]
                self.send(200, {"outputs": [{"b64": text} for text in coded]})
            else:
                self.send(200, {"outputs": output.tolist()})
        else:
            self.send(200, {"model_version_status": status()})

    def send(self, status, content):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def be_busy(self):
        self.send(503, {"error": BUSY})

    def be_wrong(self):
        self.send(400, {"error": WRONG + NODE})

    def be_gone(self):
        self.close_connection = True

    def be_cut(self):
        """Closes the connection within the reply."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"outputs": [')
        self.close_connection = True

    def be_silent(self):
        self.server.fake.released.wait()
        self.close_connection = True

    def be_slow(self):
        """Sends a reply that does not end, a byte at a time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        released = self.server.fake.released
        while not released.wait(0.02):
            try:
                self.wfile.write(b" ")
            except OSError:
                break
        self.close_connection = True

    def be_page(self):
        self.send(200, b"<html>hello</html>")

    def be_page_404(self):
        self.send(404, b"<html>not here</html>")

    def be_page_503(self):
        self.send(503, b"<html>upstream</html>")

    def be_list(self):
        self.send(200, [1, 2])

    def be_ragged(self):
        self.send(200, {"outputs": [[1.0], [2.0, 3.0]]})

    def be_no_base64(self):
        self.send(200, {"outputs": [{"b64": "*"}, {"b64": "*"}]})

    def be_no_png(self):
        coded = base64.b64encode(b"\x89PNG no").decode()
        self.send(200, {"outputs": [{"b64": coded}] * 2})

    def be_short(self):
        coded = base64.b64encode(png(pixels(0, 1))).decode()
        self.send(200, {"outputs": [{"b64": coded}]})

    def be_large(self):
        """An answer in more than 4 MiB of JSON, most of them spaces."""
        coded = base64.b64encode(png(pixels(8, 1))).decode()
        answer = json.dumps({"outputs": [{"b64": coded}]}).encode()
        self.send(200, b" " * 5 * 2**20 + answer)

    def be_redirected(self):
        self.send_response(302)
        self.send_header("Location", "/v1/models/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


def status():
    return [
        {
            "version": str(version),
            "state": state,
            "status": {"error_code": "OK", "error_message": ""},
        }
        for version, state in VERSIONS.items()
    ]


class Servicer(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """On the real generated stubs."""

    def __init__(self, fake):
        self.fake = fake

    def check(self, spec, context):
        """Ends the call if it is to fail; returns the version asked for."""
        fault = self.fake.next_fault()
        if fault is not None:
            self.fake.asked.append((fault, None, 0))
        if fault == "busy":
            context.abort(grpc.StatusCode.UNAVAILABLE, BUSY)
        if fault == "wrong":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, WRONG + NODE)
        if fault == "silent":
            self.fake.released.wait()
        version = spec.version.value if spec.HasField("version") else None
        error = missing(self.fake, spec.name, version)
        if error is not None:
            context.abort(grpc.StatusCode.NOT_FOUND, error)
        return version

    def Predict(self, request, context):
        version = self.check(request.model_spec, context)
        inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        name, output = self.fake.answer(
            request.model_spec.signature_name, version, inputs
        )
        response = predict_pb2.PredictResponse()
        response.outputs[name].CopyFrom(tf.make_tensor_proto(output))
        return response

    def GetModelStatus(self, request, context):
        self.check(request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, state in VERSIONS.items():
            known = response.model_version_status.add(version=version)
            known.state = known.State.Value(state)
        return response


@contextmanager
def rest(port=0, **options):
    """Serves REST; yields the `Fake`."""
    fake = Fake(**options)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.fake = fake
    fake.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield fake
    finally:
        fake.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def rpc(port=0, **options):
    """Serves gRPC; yields the `Fake`."""
    fake = Fake(**options)
    servicer = Servicer(fake)
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            servicer, server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            servicer, server
        )
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        fake.address = f"grpc://127.0.0.1:{port}"
        server.start()
        try:
            yield fake
        finally:
            fake.released.set()
            server.stop(None).wait()
