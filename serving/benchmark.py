"""Measures the server against its model: `python -m serving.benchmark`."""

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checked import require
from transgan_tf.checked import require_choice

PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEAD = """\
| | p50 ms | p90 ms | p99 ms | images/s | of the loop |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Arguments:
    """Measure latency and images a second over gRPC and REST.

    A server is started on free ports. Before and after it, the newest version
    alone is called in a loop; the last column compares with that.

    python -m serving.benchmark --model_dir=models/transgan
    """

    model_dir: Path
    """Folder of the model."""
    signature: str = "serving_default"
    """serving_default, which gives pixels as numbers, or sample, PNGs."""
    batch_size: int = 8
    """Images a request."""
    seconds: float = 5.0
    """Time for each row of the table."""
    clients: tuple[int, ...] = (1, 8, 32)
    """Numbers of clients that ask at the same time."""

    def check(self) -> None:
        """Raises `UserError` for values that cannot be used."""
        known = ("serving_default", "sample")
        require_choice("--signature", self.signature, known)
        size, rule = self.batch_size, "must be at least 1"
        require(size >= 1, "--batch_size", rule, size)
        require(self.seconds > 0, "--seconds", "must be above 0", self.seconds)
        least = min(self.clients, default=0)
        require(least >= 1, "--clients", rule, self.clients)


class Measured:
    """Calls of one kind: their latencies, and the time they took in all."""

    def __init__(self):
        self.latencies = []
        self.seconds = 0.0

    def line(self, name: str, batch_size: int, alone: float) -> str:
        """Returns a line of the table; `alone` is the loop's images/s."""
        percentiles = np.percentile(self.latencies, (50, 90, 99)) * 1000
        speed = self.speed(batch_size)
        cells = [name, *(f"{value:.1f}" for value in percentiles)]
        return f"| {' | '.join(cells)} | {speed:.0f} | {speed / alone:.2f} |"

    def speed(self, batch_size: int) -> float:
        """Returns images a second."""
        return len(self.latencies) * batch_size / self.seconds


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    import tensorflow as tf

    from serving.servable import Servable
    from serving.versions import find_versions

    arguments.check()
    # Notes of how to load a SavedModel in other ways.
    tf.get_logger().setLevel("ERROR")
    versions = find_versions(arguments.model_dir)
    if not versions:
        raise UserError(f"{arguments.model_dir} holds no version")
    servable = Servable(versions[max(versions)])
    signature = servable.signatures[arguments.signature]
    inputs = _inputs(signature, arguments.batch_size)
    loop = Measured()
    _call_alone(servable, signature, inputs, arguments.seconds, loop)
    rows = []
    with _server(arguments) as (rest, grpc):
        name = arguments.model_dir.resolve().name
        for kind, asking in (
            ("gRPC", _grpc(grpc, name, arguments.signature, inputs)),
            ("REST", _rest(rest, name, arguments.signature, inputs)),
        ):
            for clients in arguments.clients:
                measured = asyncio.run(_ask(asking, clients, arguments.seconds))
                rows.append((f"{kind}, clients: {clients}", measured))
    # Again, since a machine's speed may have changed meanwhile.
    _call_alone(servable, signature, inputs, arguments.seconds, loop)
    alone = loop.speed(arguments.batch_size)
    print(HEAD)
    for name, measured in [("loop", loop), *rows]:
        print(measured.line(name, arguments.batch_size, alone))
    return cli.DONE


def _inputs(signature, batch_size):
    """Returns the arrays of a request."""
    random = np.random.default_rng(0)
    if "latents" in signature.inputs:
        width = signature.inputs["latents"].tensor_shape.dim[1].size
        latents = random.normal(size=(batch_size, width))
        return {"latents": latents.astype("float32")}
    return {
        "seed": np.arange(batch_size),
        "truncation": np.ones(batch_size, "float32"),
    }


def _call_alone(servable, signature, inputs, seconds, measured):
    """Calls the model for a while, one call after the other."""
    servable.run(signature, inputs)
    started = time.perf_counter()
    while (begun := time.perf_counter()) < started + seconds:
        servable.run(signature, inputs)
        measured.latencies.append(time.perf_counter() - begun)
    measured.seconds += time.perf_counter() - started


@contextlib.contextmanager
def _server(arguments):
    """Yields the REST and gRPC addresses of a server in its own process."""
    command = [sys.executable, "-m", "serving.server"]
    command += [f"--model_dir={arguments.model_dir}"]
    command += [f"--max_batch_size={arguments.batch_size}"]
    command += ["--rest_port=0", "--grpc_port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        places = re.search(r"REST on http://(\S+), gRPC on (\S+)", line)
        if places is None:
            raise UserError("the server did not start")
        yield places.groups()
    finally:
        process.terminate()
        process.communicate()


async def _ask(asking, clients, seconds):
    """Asks by so many clients at the same time for a while."""
    measured = Measured()
    async with asking() as ask:
        await asyncio.gather(*(ask() for _ in range(clients)))
        started = time.perf_counter()

        async def client():
            while (begun := time.perf_counter()) < started + seconds:
                await ask()
                measured.latencies.append(time.perf_counter() - begun)

        await asyncio.gather(*(client() for _ in range(clients)))
        measured.seconds = time.perf_counter() - started
    return measured


def _grpc(place, model, signature, inputs):
    """Returns a context of a function that asks over gRPC.

    Replies are left as bytes, so that the client takes little of the machine.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for alias, array in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(array))
    data = request.SerializeToString()

    @contextlib.asynccontextmanager
    async def asking():
        unlimited = [("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(place, unlimited) as channel:
            call = channel.unary_unary(PREDICT)
            yield lambda: call(data)

    return asking


def _rest(place, model, signature, inputs):
    """Returns a context of a function that asks over REST."""
    import aiohttp

    columns = {alias: array.tolist() for alias, array in inputs.items()}
    document = {"signature_name": signature, "inputs": columns}
    body = json.dumps(document).encode()
    url = f"http://{place}/v1/models/{model}:predict"

    @contextlib.asynccontextmanager
    async def asking():
        async with aiohttp.ClientSession(raise_for_status=True) as session:

            async def ask():
                async with session.post(url, data=body) as response:
                    await response.read()

            yield ask

    return asking


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m serving.benchmark", argv)


if __name__ == "__main__":
    sys.exit(main())
