"""The messages of TensorFlow Serving that a client needs, without TensorFlow.

The packages that ship them import TensorFlow. These have the same names, field
numbers and types on the wire; fields that a client has no use for are left
out, which protobuf skips. Their pool is a private one: TensorFlow registers
the same names in the default one.
"""

import math

import numpy as np
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import wrappers_pb2

# Field declarations as in the .proto files; enumerations are numbers.
_TENSORFLOW = {
    "TensorShapeProto": ("repeated TensorShapeProto.Dim dim = 2",),
    "TensorShapeProto.Dim": ("int64 size = 1",),
    "TensorProto": (
        "int32 dtype = 1",
        "TensorShapeProto tensor_shape = 2",
        "bytes tensor_content = 4",
        "repeated float float_val = 5",
        "repeated bytes string_val = 8",
        "repeated int64 int64_val = 10",
    ),
}
_SERVING = {
    "ModelSpec": (
        "string name = 1",
        ".google.protobuf.Int64Value version = 2",
        "string signature_name = 3",
    ),
    "PredictRequest": (
        "ModelSpec model_spec = 1",
        "repeated PredictRequest.InputsEntry inputs = 2",
    ),
    "PredictRequest.InputsEntry": (
        "string key = 1",
        ".tensorflow.TensorProto value = 2",
    ),
    "PredictResponse": (
        "repeated PredictResponse.OutputsEntry outputs = 1",
        "ModelSpec model_spec = 2",
    ),
    "PredictResponse.OutputsEntry": (
        "string key = 1",
        ".tensorflow.TensorProto value = 2",
    ),
    "GetModelStatusRequest": ("ModelSpec model_spec = 1",),
    "GetModelStatusResponse": (
        "repeated ModelVersionStatus model_version_status = 1",
    ),
    "ModelVersionStatus": (
        "int64 version = 1",
        "int32 state = 2",
        "StatusProto status = 3",
    ),
    "StatusProto": ("int32 error_code = 1", "string error_message = 2"),
}


def _make_file(package: str, messages: dict, *needed: str):
    """Describes a .proto file; `messages` has the fields of each, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto",
        package=package,
        syntax="proto3",
        dependency=needed,
    )
    made = {}
    for name, fields in messages.items():
        outer, _, inner = name.rpartition(".")
        message = made[outer].nested_type if outer else file.message_type
        made[name] = message.add(name=inner)
        # What `map<string, TensorProto>` stands for.
        made[name].options.map_entry = inner.endswith("Entry")
        for declaration in fields:
            _add_field(made[name], package, declaration)
    return file


def _add_field(message, package, declaration):
    """Adds a field that is declared as in a .proto file."""
    *repeated, kind, name, _, number = declaration.split()
    field = message.field.add(name=name, number=int(number))
    field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
    if kind[0].islower():
        field.type = field.Type.Value(f"TYPE_{kind.upper()}")
    else:
        field.type = field.TYPE_MESSAGE
        full = kind.startswith(".")
        field.type_name = kind if full else f".{package}.{kind}"


def _make_pool():
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    tensors = _make_file("tensorflow", _TENSORFLOW)
    needed = wrappers.name, tensors.name
    pool = descriptor_pool.DescriptorPool()
    for file in (
        wrappers,
        tensors,
        _make_file("tensorflow.serving", _SERVING, *needed),
    ):
        pool.Add(file)
    return pool


_POOL = _make_pool()


def _message_class(name):
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


TensorProto = _message_class("tensorflow.TensorProto")
PredictRequest = _message_class("tensorflow.serving.PredictRequest")
PredictResponse = _message_class("tensorflow.serving.PredictResponse")
StatusRequest = _message_class("tensorflow.serving.GetModelStatusRequest")
StatusResponse = _message_class("tensorflow.serving.GetModelStatusResponse")

# Of `ModelVersionStatus.state`.
STATES = {
    0: "UNKNOWN",
    10: "START",
    20: "LOADING",
    30: "AVAILABLE",
    40: "UNLOADING",
    50: "END",
}

# Numbers of TensorFlow's types that the signatures have, how NumPy names them,
# and where `TensorProto` holds their values.
_STRING = 7
_TYPES = {
    1: ("float32", "float_val"),
    _STRING: ("object", "string_val"),
    9: ("int64", "int64_val"),
}
_NUMBERS = {name: number for number, (name, _) in _TYPES.items()}


def to_tensor(array: np.ndarray):
    """Returns the `TensorProto` of an array.

    Args:
        array: of any shape, of float32, int64, or bytes objects.

    Raises:
        KeyError: for another type.
    """
    tensor = TensorProto(dtype=_NUMBERS[array.dtype.name])
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if tensor.dtype == _STRING:
        tensor.string_val.extend(array.ravel().tolist())
    else:
        little = array.astype(array.dtype.newbyteorder("<"))
        tensor.tensor_content = little.tobytes()
    return tensor


def from_tensor(tensor) -> np.ndarray:
    """Returns the array of a `TensorProto`.

    Args:
        tensor: with its values in `tensor_content` or in the field of its
            type, where the last one stands for all that are missing.

    Raises:
        ValueError: for another type than `to_tensor` takes, and for values
            that do not fit the shape.
    """
    if tensor.dtype not in _TYPES:
        raise ValueError(f"a tensor has the type number {tensor.dtype}")
    name, field = _TYPES[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.tensor_content and tensor.dtype != _STRING:
        little = np.dtype(name).newbyteorder("<")
        values = np.frombuffer(tensor.tensor_content, little).astype(name)
    else:
        values = np.array(getattr(tensor, field), name)
        if values.size:
            missing = max(math.prod(shape) - values.size, 0)
            values = np.pad(values, (0, missing), mode="edge")
    return values.reshape(shape)
