"""Serves exported versions: `python -m serving.server`.

TensorFlow Serving's REST and gRPC interfaces in one process of Python.
"""

import asyncio
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from serving.versions import refuse_version
from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checked import require

MIB = 2**20


@dataclass(frozen=True)
class Arguments:
    """Serve a model's newest version over REST and gRPC, as TensorFlow Serving.

    Versions that appear in the folder are loaded, and then replace the one
    that is served; those that disappear are unloaded.

    python -m serving.server --model_dir=models/transgan

    On any free port:

    python -m serving.server --model_dir=models/transgan --rest_port=0
    """

    model_dir: Path
    """Folder of the model, with a numbered folder for each version."""
    model_name: str | None = None
    """Name in requests; the folder's by default."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all of the machine's."""
    rest_port: int = 8501
    """Port of the REST interface."""
    grpc_port: int = 8500
    """Port of the gRPC interface."""
    version_labels: str = ""
    """Labels of versions to serve beside the newest: stable=3,canary=4."""
    poll_seconds: float = 1.0
    """Time between two looks at the folder."""
    retry_seconds: float = 60.0
    """Time from a version's failed load to the next attempt."""
    max_request_mib: int = 32
    """Largest request, also after decompression."""
    max_batch_size: int = 0
    """Most rows in a request; 0 for what the version's model card allows."""
    max_runs: int = 0
    """Requests that compute at the same time; 0 for one a core."""
    max_queue: int = 100
    """Requests that may wait for them; more are answered UNAVAILABLE. At worst
    memory holds three times (max_runs + max_queue) requests of max_request_mib.
    """
    timeout_seconds: float = 30.0
    """Time for a request over REST; gRPC's clients set their own."""
    client_timeout_seconds: float = 30.0
    """Time for a client of REST to send its request or to take its reply;
    gRPC's have no such limit, but hold at most 2 (max_runs + max_queue) calls.
    """
    grace_seconds: float = 10.0
    """Time for requests at hand when the server is stopped."""

    def check(self) -> None:
        """Raises `UserError` for values that cannot be used."""
        for flag in ("rest_port", "grpc_port"):
            port = getattr(self, flag)
            inside = 0 <= port < 2**16
            require(inside, f"--{flag}", "must be in [0, 65536)", port)
        mib, rule = self.max_request_mib, "must be at least 1"
        require(mib >= 1, "--max_request_mib", rule, mib)
        for flag in (
            "max_batch_size",
            "max_runs",
            "max_queue",
            "grace_seconds",
        ):
            value = getattr(self, flag)
            require(value >= 0, f"--{flag}", "must be at least 0", value)
        for flag in (
            "poll_seconds",
            "retry_seconds",
            "timeout_seconds",
            "client_timeout_seconds",
        ):
            value = getattr(self, flag)
            require(value > 0, f"--{flag}", "must be above 0", value)
        if not self.model_dir.is_dir():
            raise UserError(
                f"{self.model_dir} is not a folder: make it by python -m "
                f"serving.export --model_dir={self.model_dir}"
            )
        refuse_version(self.model_dir)

    def labels(self) -> dict[str, int]:
        """Returns version numbers by label.

        Raises:
            UserError: `version_labels` has another form.
        """
        labels = {}
        for item in filter(None, self.version_labels.split(",")):
            label, _, number = item.partition("=")
            known = bool(label) and number.isascii() and number.isdecimal()
            rule = "must be like stable=3,canary=4"
            require(known, "--version_labels", rule, self.version_labels)
            labels[label] = int(number)
        return labels


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    arguments.check()
    # gRPC would write lines of its own about a port that is taken.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import aiohttp  # noqa: F401
        import tensorflow_serving.apis  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"the package {error.name} is missing: pip install -e '.[serving]'"
        ) from None
    return asyncio.run(serve(arguments))


async def serve(arguments: Arguments) -> int:
    """Serves until a signal; returns the exit status, 128 and its number.

    Raises:
        UserError: a port is taken.
    """
    from serving.models import Model
    from serving.monitoring import Metrics
    from serving.runs import Runs
    from serving.service import Limits
    from serving.service import Service

    _show_log()
    stop = _take_signals()
    name = arguments.model_name or arguments.model_dir.resolve().name
    model = Model(
        name,
        arguments.model_dir,
        arguments.labels(),
        arguments.poll_seconds,
        arguments.retry_seconds,
    )
    limits = Limits(
        arguments.max_request_mib * MIB,
        arguments.max_batch_size,
        arguments.timeout_seconds,
        arguments.client_timeout_seconds,
    )
    runs = Runs(arguments.max_runs or os.cpu_count() or 1, arguments.max_queue)
    service = Service(model, runs, Metrics(), limits)
    grpc_server, grpc_port = await _start_grpc(service, arguments)
    try:
        rest_server, rest_port = await _start_rest(service, arguments)
    except BaseException:
        await grpc_server.stop(None)
        raise
    model.start()
    places = (
        f"REST on http://{arguments.host}:{rest_port}, "
        f"gRPC on {arguments.host}:{grpc_port}"
    )
    status = await _until(stop, model, f"serving {name}: {places}")
    loop, grace = asyncio.get_running_loop(), arguments.grace_seconds
    stopped = loop.time() + grace
    await asyncio.gather(grpc_server.stop(grace), rest_server.cleanup())
    await _close(runs, model, max(stopped - loop.time(), 1.0), status)
    return status


async def _close(runs, model, seconds, status):
    """Ends the threads, in a thread: the loop still takes a second signal.

    A run cannot be interrupted: after the time, the process ends with it.
    """

    def close():
        runs.close()
        model.close()

    try:
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(close)
    except TimeoutError:
        sys.stdout.flush()
        os._exit(status)


async def _until(stop, model, ready):
    """Prints the line when a version is there; returns the exit status."""
    while not stop.done():
        # The event is set by a thread that knows no event loop.
        if model.available.is_set():
            print(ready, flush=True)
            break
        await asyncio.wait([stop], timeout=0.05)
    return await stop


def _take_signals():
    """Returns a future of the exit status; a second signal ends at once."""
    loop = asyncio.get_running_loop()
    stop = loop.create_future()

    def note(number):
        if stop.done():
            os._exit(128 + number)
        stop.set_result(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, note, number)
    return stop


async def _start_grpc(service, arguments):
    from serving.rpc import make_server

    server = make_server(service)
    place = f"{arguments.host}:{arguments.grpc_port}"
    try:
        port = server.add_insecure_port(place)
    except RuntimeError:
        raise UserError(
            f"gRPC cannot listen on {place}: another --grpc_port may be free"
        ) from None
    await server.start()
    return server, port


async def _start_rest(service, arguments):
    from aiohttp import web

    from serving.rest import Rest

    runner = web.AppRunner(
        Rest(service).application(),
        access_log=None,
        handler_cancellation=True,
        # Also how long a client may take to send its headers.
        keepalive_timeout=arguments.client_timeout_seconds,
        # It is spent twice: until requests end, and until they are cancelled.
        shutdown_timeout=arguments.grace_seconds / 2,
    )
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.rest_port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise UserError(
            f"REST cannot listen on {arguments.host}:{arguments.rest_port} "
            f"({os.strerror(error.errno)}): another --rest_port may be free"
        ) from None
    return runner, runner.addresses[0][1]


def _show_log():
    """Sends this package's log lines, and no other's, to standard error."""
    import tensorflow as tf

    log = logging.getLogger("serving")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    # What it logs is clients that break off; errors of ours we log.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    # Notes of how to load a SavedModel in other ways.
    tf.get_logger().setLevel(logging.ERROR)


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m serving.server", argv)


if __name__ == "__main__":
    sys.exit(main())
