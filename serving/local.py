"""The embedded server as a process for a while, on ports that are free."""

import contextlib
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from transgan_tf.checked import UserError
from transgan_tf.processes import tied_to_this

_PLACES = re.compile(r"REST on (http://\S+), gRPC on (\S+)")


class ServerError(UserError):
    """A server that does not serve the model."""


@contextlib.contextmanager
def served(model_dir, seconds: float = 300.0) -> Iterator[tuple[str, str]]:
    """Gives the addresses of a server, over REST and over gRPC.

    Args:
        model_dir: the model's folder, which holds its versions.
        seconds: until the server must have loaded the newest one.

    Raises:
        ServerError: it has not.
    """
    command = [sys.executable, "-m", "serving.server"]
    command += [f"--model_dir={model_dir}", "--rest_port=0", "--grpc_port=0"]
    command += ["--poll_seconds=0.1"]
    process = subprocess.Popen(
        tied_to_this(command), stdout=subprocess.PIPE, text=True
    )
    try:
        yield _wait(process, seconds)
    finally:
        process.kill()
        process.communicate()


def _wait(process, seconds):
    """Returns the addresses that the server prints once it has loaded."""
    lines = queue.SimpleQueue()

    def read():
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + seconds
    with contextlib.suppress(queue.Empty):
        while line := lines.get(timeout=max(deadline - time.monotonic(), 0)):
            if places := _PLACES.search(line):
                return places[1], f"grpc://{places[2]}"
        raise ServerError("the server ended before it had loaded the model")
    raise ServerError(
        f"the server did not load the model within {seconds:g} seconds"
    )
