"""REST, by JSON."""

import base64
import json
import time
from http.client import BadStatusLine
from http.client import RemoteDisconnected
from urllib.parse import quote

import numpy as np
import urllib3

from serving.client import errors
from serving.client.errors import ServingError

# What the codes of gRPC are over REST.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CHUNK = 2**20


class Rest:
    """A server's REST, at the address itself, past any proxy.

    Args:
        address: such as `http://localhost:8501`.
    """

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._pool = urllib3.PoolManager()

    def predict(self, model, version, signature, inputs, deadline):
        """Calls a signature that has one output.

        Args:
            model: its name.
            version: its number, or `None` for the newest.
            signature: its key.
            inputs: arrays by name.
            deadline: when to give up, on the clock of `time.monotonic`.

        Returns:
            The output, an array of float32 or of bytes objects.

        Raises:
            ServingError: for whatever fails.
        """
        columns = {name: array.tolist() for name, array in inputs.items()}
        body = {"signature_name": signature, "inputs": columns}
        path = f"{_path(model, version)}:predict"
        reply = self._ask("POST", path, deadline, json.dumps(body))
        try:
            return _from_json(reply["outputs"])
        except (KeyError, TypeError, ValueError):
            raise self._garbage() from None

    def status(self, model, version, deadline) -> list[dict]:
        """Returns what the server knows of versions, the newest first.

        Returns:
            Dicts of `version` (int), `state` (such as "AVAILABLE") and `error`
            (text, empty if all is well).
        """
        reply = self._ask("GET", _path(model, version), deadline)
        try:
            return [
                {
                    "version": int(known["version"]),
                    "state": str(known["state"]),
                    "error": str(known["status"]["error_message"]),
                }
                for known in reply["model_version_status"]
            ]
        except (KeyError, TypeError, ValueError):
            raise self._garbage() from None

    def _ask(self, verb, path, deadline, body=None):
        """Returns the JSON of a reply."""
        left = deadline - time.monotonic()
        try:
            reply = self._pool.request(
                verb,
                self.address + path,
                body=body,
                headers={"Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=max(left, 0.001)),
                retries=False,  # Nor are redirects followed.
                preload_content=False,
            )
            with reply:
                content = _read(reply, deadline)
        except urllib3.exceptions.HTTPError as error:
            raise self._failed(error) from None
        return self._parse(reply.status, content)

    def _failed(self, error):
        """Returns what an error of the network means."""
        # Connections that are refused count as late there, too.
        if isinstance(error, urllib3.exceptions.NewConnectionError):
            return errors.unreachable(
                self.address, str(error).rsplit(": ", 1)[-1]
            )
        if isinstance(error, urllib3.exceptions.TimeoutError):
            return errors.late(self.address)
        cause = error.args[-1] if error.args else None
        if isinstance(cause, BadStatusLine):
            if not isinstance(cause, RemoteDisconnected):
                return self._garbage("it does not speak HTTP")
        return ServingError(
            "UNAVAILABLE", f"the connection to {self.address} failed ({error})"
        )

    def _parse(self, status, content):
        try:
            reply = json.loads(content)
        except (RecursionError, ValueError):
            reply = None
        if isinstance(reply, dict):
            if status == 200:
                return reply
            if "error" in reply:
                code = _CODES.get(status, "INTERNAL")
                message = str(reply["error"])
                raise errors.refused(self.address, code, message)
        # A proxy's page, maybe.
        code = "UNAVAILABLE" if status == 503 else "UNKNOWN"
        raise self._garbage(f"status {status}", code)

    def _garbage(self, detail="a reply of another form", code="UNKNOWN"):
        return errors.garbage(self.address, detail, code)

    def close(self) -> None:
        self._pool.clear()


def _path(model, version):
    path = f"/v1/models/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{version}"


def _read(reply, deadline):
    """Returns the content of a reply; each chunk may be the last in time."""
    chunks = []
    # Whatever has come: waiting for a full chunk would have no deadline.
    while chunk := reply.read1(_CHUNK, decode_content=True):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise urllib3.exceptions.TimeoutError
    return b"".join(chunks)


def _from_json(output):
    """Returns the array of an output in column format."""
    if output and isinstance(output[0], dict):
        images = np.empty(len(output), object)
        for i, item in enumerate(output):
            images[i] = base64.b64decode(item["b64"], validate=True)
        return images
    return np.array(output, "float32")
