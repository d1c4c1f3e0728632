"""Asks a server for images: `Client`, and `python -m serving.client`.

Both TensorFlow Serving and `python -m serving.server` answer, over REST and
gRPC. Imports no TensorFlow.
"""

import io
import random
import time
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from serving.client.errors import ServingError
from serving.client.rest import Rest
from serving.client.rpc import Grpc
from transgan_tf.checked import UserError
from transgan_tf.checked import require

# Seconds before the first try after a failed one; doubled for each further.
FIRST_DELAY = 0.1


class Client:
    """A connection to one model of a server; for one thread.

    Args:
        address: `http://host:port` for REST, `grpc://host:port` for gRPC.
        model: name of the model.
        version: its number; by default the newest at each request.
        timeout: seconds that a request may take, with its tries.
        retries: further tries of a request while the server cannot be reached
            or is too busy (UNAVAILABLE, 503).
        batch_size: most images of one request.

    Raises:
        ConfigError: for an address of another form. All methods raise
            `ServingError`, with the server's message.
    """

    def __init__(
        self,
        address: str = "http://localhost:8501",
        model: str = "transgan",
        version: int | None = None,
        timeout: float = 60.0,
        retries: int = 5,
        batch_size: int = 16,
    ):
        self.model, self.version = model, version
        self.timeout, self.retries = timeout, retries
        self.batch_size = batch_size
        self._transport = _connect(address)

    def sample(self, seeds, truncation: float = 1.0) -> np.ndarray:
        """Returns the uint8 images `(N, H, W, C)` of seeds `(N,)`.

        A seed's image is that of `python -m transgan_tf.sample`.
        """
        seeds = np.asarray(seeds, "int64")
        scale = np.full(len(seeds), truncation, "float32")
        return self._pictures("sample", {"seed": seeds, "truncation": scale})

    def interpolate(
        self, start: int, stop: int, frames: int, truncation: float = 1.0
    ) -> np.ndarray:
        """Returns images on the way from a seed to another one, both included.

        Args:
            start, stop: seeds.
            frames: number of images, at least 2.
            truncation: in (0, 1].

        Returns:
            uint8 `(frames, H, W, C)`.
        """
        inputs = {
            "start": np.full(frames, start, "int64"),
            "stop": np.full(frames, stop, "int64"),
            "position": np.linspace(0, 1, frames, dtype="float32"),
            "truncation": np.full(frames, truncation, "float32"),
        }
        return self._pictures("interpolate", inputs)

    def latents(self, z) -> np.ndarray:
        """Returns the float32 images `(N, H, W, C)` in [-1, 1] of latents.

        Args:
            z: `(N, Z)`.
        """
        inputs = {"latents": np.asarray(z, "float32")}
        images = self._predict("serving_default", inputs)
        if images.dtype == object or images.ndim != 4:
            raise self._no_images()
        return images

    def status(self) -> list[dict]:
        """Returns the model's versions, the newest first.

        Returns:
            Dicts of `version` (int), `state` (such as "AVAILABLE") and `error`
            (text, empty if all is well).
        """
        return self._retry(
            lambda deadline: self._transport.status(
                self.model, self.version, deadline
            )
        )

    def close(self) -> None:
        self._transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _pictures(self, signature, inputs):
        """Returns the pixels of a signature's PNG files."""
        files = self._predict(signature, inputs)
        try:
            # Anything else is no text of bytes, or no PNG file.
            return np.stack([_pixels(file) for file in files])
        except (OSError, SyntaxError, TypeError, ValueError):
            raise self._no_images() from None

    def _no_images(self):
        return ServingError(
            "UNKNOWN",
            f"{self._transport.address} answered with something that is not "
            f"images: is {self.model} a model of python -m serving.export?",
        )

    def _predict(self, signature, inputs):
        """Calls a signature, `batch_size` rows at a time."""
        count = len(next(iter(inputs.values())))
        if count == 0:
            raise UserError("there are no images to ask for")
        outputs = []
        for start in range(0, count, self.batch_size):
            rows = slice(start, start + self.batch_size)
            batch = {name: array[rows] for name, array in inputs.items()}
            output = self._retry(
                lambda deadline, batch=batch: self._transport.predict(
                    self.model, self.version, signature, batch, deadline
                )
            )
            if output.shape[:1] != (min(self.batch_size, count - start),):
                raise self._no_images()
            outputs.append(output)
        return np.concatenate(outputs)

    def _retry(self, ask):
        """Calls `ask` until it is answered, `retries` are over, or the time."""
        deadline = time.monotonic() + self.timeout
        delay = FIRST_DELAY
        for left in range(self.retries, -1, -1):
            try:
                return ask(deadline)
            except ServingError as error:
                over = time.monotonic() + delay > deadline
                if error.code != "UNAVAILABLE" or left == 0 or over:
                    raise self._explained(error) from None
            # Clients that were refused together do not come back together.
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay *= 2

    def _explained(self, error):
        """Adds what helps if there is no such model or version."""
        if error.code != "NOT_FOUND":
            return error
        hint = (
            "the name of a model is that of the folder that is served, or "
            "stands in models.config; --status tells whether it still loads"
        )
        if self.version is not None:
            hint = "--status without --version shows what is loaded"
        return ServingError(error.code, f"{error}; {hint}")


def _connect(address: str):
    """Returns the `Rest` or `Grpc` of an address; connects later.

    Raises:
        ConfigError: for an address of another form.
    """
    rule = "must be http://host:port, https://host:port or grpc://host:port"
    try:
        parts = urlsplit(address)
        is_grpc = parts.scheme == "grpc"
        # Reading the port checks it.
        known = bool(parts.hostname) and (bool(parts.port) or not is_grpc)
    except ValueError:
        known = False
    known = known and parts.scheme in ("http", "https", "grpc")
    require(known, "--address", rule, address)
    return Grpc(address, parts.netloc) if is_grpc else Rest(address)


def _pixels(file):
    """Returns the uint8 pixels `(H, W, C)` of a PNG file's bytes."""
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
