"""The client's messages are TensorFlow Serving's own, on the wire."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import predict_pb2

from serving import messages

THEIRS = {
    messages.TensorProto: tensor_pb2.TensorProto,
    messages.PredictRequest: predict_pb2.PredictRequest,
    messages.PredictResponse: predict_pb2.PredictResponse,
    messages.StatusRequest: get_model_status_pb2.GetModelStatusRequest,
    messages.StatusResponse: get_model_status_pb2.GetModelStatusResponse,
}
ARRAYS = [
    np.array([[0.1, -np.inf, 3], [np.nan, -0.0, 1e-45]], "float32"),
    np.array([-(2**63), 7, 2**63 - 1], "int64"),
    np.array([[b"\x89PNG\x00\xff"], [b""]], object),
    np.array(2.5, "float32"),
    np.zeros((0, 3), "float32"),
    np.zeros((0,), object),
]
kind = descriptor.FieldDescriptor


def compare(ours, theirs, seen):
    """Asserts that each of our fields is one of theirs; down to the leaves."""
    assert ours.full_name == theirs.full_name
    seen.add(ours.full_name)
    assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert field.number == other.number, field.full_name
        assert field.is_repeated == other.is_repeated
        assert field.is_packed == other.is_packed
        # On the wire an enumeration is a number of this type.
        is_enum = other.type == kind.TYPE_ENUM
        assert field.type == (kind.TYPE_INT32 if is_enum else other.type)
        if field.message_type is not None:
            compare(field.message_type, other.message_type, seen)


def test_fields_have_the_names_numbers_and_types_of_the_stubs():
    seen = set()
    for ours, theirs in THEIRS.items():
        compare(ours.DESCRIPTOR, theirs.DESCRIPTOR, seen)
    # Eleven that are declared, and the wrapper of a version.
    assert len(seen) == len(messages._TENSORFLOW) + len(messages._SERVING) + 1


def test_states_and_types_have_the_numbers_of_the_stubs():
    status = get_model_status_pb2.ModelVersionStatus
    assert {v: k for k, v in messages.STATES.items()} == dict(
        status.State.items()
    )
    for number, (name, _) in messages._TYPES.items():
        assert np.dtype(tf.as_dtype(number).as_numpy_dtype) == np.dtype(name)


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_tensors_are_read_by_tensorflow(array):
    sent = messages.to_tensor(array).SerializeToString()
    received = tf.make_ndarray(tensor_pb2.TensorProto.FromString(sent))
    assert received.dtype == array.dtype
    np.testing.assert_array_equal(received, array)


def by_content(array):
    return tf.make_tensor_proto(array)


def by_fields(array):
    """As TensorFlow Serving answers by default."""
    tensor = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum
    )
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    field = {"float32": "float_val", "int64": "int64_val"}
    field = field.get(array.dtype.name, "string_val")
    getattr(tensor, field).extend(array.ravel().tolist())
    return tensor


@pytest.mark.parametrize("make", [by_content, by_fields])
@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_tensors_are_read_from_tensorflow(make, array):
    sent = make(array).SerializeToString()
    received = messages.from_tensor(messages.TensorProto.FromString(sent))
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    np.testing.assert_array_equal(received, array)


def test_the_last_value_stands_for_those_that_are_missing():
    sent = tensor_pb2.TensorProto(dtype=1, float_val=[1.5, -2.0])
    for size in (2, 3):
        sent.tensor_shape.dim.add(size=size)
    received = messages.TensorProto.FromString(sent.SerializeToString())
    expected = np.array([[1.5, -2, -2], [-2, -2, -2]])
    np.testing.assert_array_equal(messages.from_tensor(received), expected)
    np.testing.assert_array_equal(tf.make_ndarray(sent), expected)


@pytest.mark.parametrize(
    ("fields", "shape", "rule"),
    [
        ({"dtype": 19, "half_val": [1]}, [1], "type number 19"),
        ({"dtype": 1, "float_val": [1, 2, 3]}, [2], "reshape"),
        ({"dtype": 1, "tensor_content": b"12345"}, [1], "multiple of"),
        ({"dtype": 1, "tensor_content": b"1234"}, [2], "reshape"),
        ({"dtype": 9}, [2], "reshape"),
    ],
)
def test_values_that_do_not_fit_are_refused(fields, shape, rule):
    sent = tensor_pb2.TensorProto(**fields)
    for size in shape:
        sent.tensor_shape.dim.add(size=size)
    received = messages.TensorProto.FromString(sent.SerializeToString())
    with pytest.raises(ValueError, match=rule):
        messages.from_tensor(received)


def test_a_request_and_a_reply_by_hand():
    request = messages.PredictRequest()
    request.model_spec.name = "transgan"
    request.model_spec.version.value = 12
    request.model_spec.signature_name = "sample"
    seeds = np.array([3, 5], "int64")
    request.inputs["seed"].CopyFrom(messages.to_tensor(seeds))
    theirs = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert theirs.model_spec.name == "transgan"
    assert theirs.model_spec.version.value == 12
    assert theirs.model_spec.signature_name == "sample"
    assert list(tf.make_ndarray(theirs.inputs["seed"])) == [3, 5]

    # A field that ours lack is skipped.
    response = predict_pb2.PredictResponse()
    response.model_spec.version_label = "stable"
    response.model_spec.signature_name = "sample"
    response.outputs["png_bytes"].CopyFrom(tf.make_tensor_proto([b"one"]))
    ours = messages.PredictResponse.FromString(response.SerializeToString())
    assert ours.model_spec.signature_name == "sample"
    assert messages.from_tensor(ours.outputs["png_bytes"]).tolist() == [b"one"]
