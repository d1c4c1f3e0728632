"""What a server answers instead of a result: a code and a sentence.

The codes are gRPC's, by name, for HTTP too: TensorFlow Serving maps each to a
status.
"""

from tensorflow.core.protobuf import error_codes_pb2

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class CallError(Exception):
    """An answer other than OK.

    Args:
        code: a key of `HTTP_STATUS`.
        message: the sentence for the client.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> CallError:
    """Returns the error of a request that can never succeed."""
    return CallError("INVALID_ARGUMENT", message)


def from_exception(error: Exception) -> CallError:
    """Returns what an exception of TensorFlow's, or any other, answers."""
    if isinstance(error, CallError):
        return error
    number = getattr(error, "error_code", None)
    if isinstance(number, int) and number in error_codes_pb2.Code.values():
        code = error_codes_pb2.Code.Name(number)
        return CallError(code, getattr(error, "message", str(error)))
    return CallError("INTERNAL", f"{type(error).__name__}: {error}")
