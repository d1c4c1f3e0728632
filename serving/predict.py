"""A Predict call on a loaded version: messages to arrays, the run, and back."""

import math
import time

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving.errors import CallError
from serving.errors import invalid
from serving.servable import Servable
from serving.signatures import SERVING_DEFAULT
from serving.tensors import check_dimensions
from serving.tensors import type_name

# Of packed floats in a TensorProto: field 5 and field 6, by length.
_PACKED = {"float32": b"\x2a", "float64": b"\x32"}


def find_signature(
    servable: Servable, name: str
) -> meta_graph_pb2.SignatureDef:
    """Returns a signature of a request.

    Raises:
        CallError: FAILED_PRECONDITION, there is none of that name.
    """
    try:
        return servable.all_signatures[name or SERVING_DEFAULT]
    except KeyError:
        raise CallError(
            "FAILED_PRECONDITION",
            f'Serving signature key "{name or SERVING_DEFAULT}" not found.',
        ) from None


def read_inputs(signature, tensors, most_bytes: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a request's tensors by alias.

    Args:
        signature: `SignatureDef`.
        tensors: `TensorProto` by alias.
        most_bytes: an array may have; a small message can claim a large shape.

    Raises:
        CallError: INVALID_ARGUMENT, the aliases are not those of the
            signature, strings come for numbers, or a tensor cannot be read.
    """
    wanted = sorted(signature.inputs)
    if len(tensors) != len(wanted):
        sent, known = set(tensors), set(wanted)
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({_braces(sent)}) != len({_braces(known)}). "
            f"Sent extra: {_braces(sent - known)}. "
            f"Missing but required: {_braces(known - sent)}."
        )
    for alias in wanted:
        if alias not in tensors:
            raise invalid(
                f"Signature input alias: {alias}(feed name: "
                f"{signature.inputs[alias].name}) not found in request and no "
                "default value provided. Inputs expected to be in the set "
                f"{_braces(wanted)}."
            )
    for number, alias in enumerate(wanted):
        _check_strings(tensors[alias], signature.inputs[alias], number)
    return {
        alias: _to_array(tensors[alias], alias, most_bytes) for alias in wanted
    }


def _check_strings(proto, info, number):
    """Refuses strings for numbers as TensorFlow would, before they are many.

    Other types are left to TensorFlow.
    """
    if proto.dtype == tf.string and info.dtype != tf.string:
        wanted = type_name(tf.as_dtype(info.dtype).name)
        raise invalid(
            f"Expects arg[{number}] to be {wanted} but string is provided"
        )


def _braces(names):
    return "{" + ",".join(sorted(names)) + "}"


def _to_array(proto, alias, most_bytes):
    check_dimensions(len(proto.tensor_shape.dim))
    shape = [dimension.size for dimension in proto.tensor_shape.dim]
    unknown = proto.tensor_shape.unknown_rank or min(shape, default=0) < 0
    try:
        dtype = tf.as_dtype(proto.dtype)
        if unknown or not (dtype.size or dtype == tf.string):
            raise ValueError("no such tensor")
        if _claimed_bytes(proto, dtype, math.prod(shape)) > most_bytes:
            raise invalid(f"tensor too large: {alias} of shape {shape}")
        if proto.tensor_content and dtype != tf.string:
            flat = np.frombuffer(proto.tensor_content, dtype.as_numpy_dtype)
            return flat.reshape(shape)
        return tf.make_ndarray(proto)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise invalid(f"tensor parsing error: {alias}") from None


def _claimed_bytes(proto, dtype, count):
    """Returns how large a tensor will be; its last string stands for others."""
    if dtype != tf.string:
        return count * dtype.size
    lengths = [len(value) for value in proto.string_val]
    missing = max(count - len(lengths), 0)
    # And a pointer each.
    return sum(lengths) + missing * max(lengths[-1:], default=0) + 8 * count


def to_message(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns a tensor with its values in fields, as TensorFlow Serving's."""
    tag = _PACKED.get(array.dtype.name)
    if tag is None:
        return _strings(array) if array.dtype == object else _others(array)
    # Packed floats are the array's bytes on the wire: appended one by one, a
    # large reply would take longer than the network.
    message = _header(array, tf.as_dtype(array.dtype))
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    message.MergeFromString(tag + _varint(len(data)) + data)
    return message


def _header(array, dtype):
    message = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    message.tensor_shape.SetInParent()
    return message


def _strings(array):
    message = _header(array, tf.string)
    message.string_val.extend(array.ravel().tolist())
    return message


def _others(array):
    """Through `tf.make_tensor_proto`, whose fields are as TensorFlow's."""
    return tf.make_tensor_proto(array)


def _varint(number):
    """Returns a length as protobuf writes it: seven bits a byte, low first."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


def filtered(signature, output_filter) -> list[str]:
    """Returns the aliases to compute: those asked for, or all.

    Raises:
        CallError: INVALID_ARGUMENT, the signature lacks one, or one is asked
            for twice.
    """
    for number, alias in enumerate(output_filter):
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs "
                f"expected to be in the set {_braces(signature.outputs)}."
            )
        if alias in output_filter[:number]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return list(output_filter) or sorted(signature.outputs)


def check_rows(rows: dict[str, int], most: int) -> None:
    """Raises INVALID_ARGUMENT for an alias of more than `most` rows."""
    for alias, count in rows.items():
        if count > most:
            raise invalid(
                f"{alias} has {count} rows, more than the {most} of a batch "
                "that this server takes"
            )


def time_left_ms(deadline: float | None) -> int | None:
    """Returns milliseconds until a deadline of `time.monotonic`, at least 1.

    Raises:
        CallError: DEADLINE_EXCEEDED, it has passed.
    """
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise CallError("DEADLINE_EXCEEDED", "the deadline has passed")
    return max(round(min(left, 1e6) * 1000), 1)
