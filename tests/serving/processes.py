"""Servers for tests, as real processes, and clients of plain sockets' kind."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import model_service_pb2_grpc
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from serving.versions import find_versions
from tests.serving.tiny_versions import export_version

# Also for a server that loads a model on a busy machine.
PATIENCE = 120
UNLIMITED = [("grpc.max_receive_message_length", -1)]


@dataclass
class Server:
    """A server that runs.

    Attributes:
        rest, grpc: its addresses, `host:port`.
        folder: of the model.
        process: of the embedded server; None for another.
        published: numbers of the versions that the tests added.
    """

    rest: str
    grpc: str
    folder: Path
    process: subprocess.Popen | None = None
    published: list[int] = field(default_factory=list)

    @property
    def name(self):
        return self.folder.name

    @property
    def path(self):
        return f"/v1/models/{self.name}"

    def http(self, method, path, body=None, headers=None):
        """Returns the status and the body of a reply."""
        connection = http.client.HTTPConnection(self.rest, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    def post(self, path, document):
        """Posts JSON; returns the status and the reply's JSON."""
        status, body = self.http("POST", path, json.dumps(document))
        return status, json.loads(body)

    def predict_json(self, document):
        return self.post(f"{self.path}:predict", document)

    @contextlib.contextmanager
    def stubs(self, options=None):
        """Yields the stubs of both gRPC services."""
        with grpc.insecure_channel(self.grpc, options or ()) as channel:
            yield (
                prediction_service_pb2_grpc.PredictionServiceStub(channel),
                model_service_pb2_grpc.ModelServiceStub(channel),
            )

    def request(self, signature="", **inputs):
        """Returns a `PredictRequest`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.name
        request.model_spec.signature_name = signature
        for alias, value in inputs.items():
            tensor = tf.make_tensor_proto(value)
            request.inputs[alias].CopyFrom(tensor)
        return request

    def states(self):
        """Returns `ModelVersionStatus` by version."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self.name
        with self.stubs() as (_, models):
            rows = models.GetModelStatus(request).model_version_status
        return {row.version: row for row in rows}

    def wait_for(self, number, *names):
        """Waits until a version has one of the states; returns its status."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            row = self.states().get(number)
            if row is not None and row.State.Name(row.state) in names:
                return row
            time.sleep(0.05)
        raise AssertionError(f"version {number} is {row}, not one of {names}")

    def publish(self, source):
        """Copies a version's folder to a number that was never used."""
        used = {0, *find_versions(self.folder), *self.states()}
        number = max(used) + 1
        self.published.append(number)
        staging = self.folder / f"tmp-{number}"
        shutil.copytree(source, staging)
        staging.rename(self.folder / str(number))
        return number

    def remove_published(self):
        """Leaves a folder that is not the tests' own as it was."""
        for number in self.published:
            for name in (f"tmp-{number}", str(number)):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def resident_mib(self):
        """Returns the process's resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@contextlib.contextmanager
def running(folder, *flags):
    """Yields an embedded `Server` that is ready; ends it."""
    command = [sys.executable, "-m", "serving.server", f"--model_dir={folder}"]
    command += ["--rest_port=0", "--grpc_port=0", "--poll_seconds=0.1", *flags]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            line = process.stdout.readline()
            places = re.search(r"REST on http://(\S+), gRPC on (\S+)", line)
            assert places, log.seek(0) or log.read()
            yield Server(*places.groups(), Path(folder), process)
            log.seek(0)
            lines = log.read()
            assert "Traceback" not in lines, lines
        finally:
            process.kill()
            process.communicate()


def exported_version() -> Path:
    """Returns the folder of a tiny version, which the tests' processes share.

    Nobody may write to it.
    """
    version = Path(os.environ["XDG_CACHE_HOME"], "served", "1")
    if not version.exists():
        version.parent.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(dir=version.parent))
        with contextlib.suppress(OSError):
            # Another process may have been faster.
            export_version(own, 1).rename(version)
    return version
