"""What a client tells when something fails."""

from transgan_tf.checked import UserError


class ServingError(UserError):
    """What a server answered, or that none did.

    Attributes:
        code: name of the gRPC status code, also over REST.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code


def refused(address: str, code: str, message: str) -> ServingError:
    """A server has answered with an error, in words of its own."""
    lines = [line.strip() for line in message.splitlines()]
    # What remains names nodes of TensorFlow's graph.
    text = " ".join(line for line in lines if not line.startswith("[["))
    return ServingError(code, f"{address}: {text or code}")


def unreachable(address: str, reason: str) -> ServingError:
    """No server answers at the address."""
    return ServingError(
        "UNAVAILABLE",
        f"no server answers at {address} ({reason}); start one with python "
        "-m serving.server --model_dir=models/transgan",
    )


def late(address: str) -> ServingError:
    """The deadline has passed."""
    return ServingError(
        "DEADLINE_EXCEEDED",
        f"{address} did not answer in time; allow more by timeout, or ask for "
        "fewer images at once by batch_size",
    )


def garbage(address: str, detail: str, code="UNKNOWN") -> ServingError:
    """Something else answers."""
    return ServingError(
        code,
        f"{address} does not answer as TensorFlow Serving does ({detail}); "
        "REST is usually at port 8501, gRPC at 8500",
    )
