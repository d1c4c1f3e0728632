"""JSON to arrays and back, value by value, as TensorFlow Serving does."""

import base64
import json

import ml_dtypes
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from serving import replies
from serving import tensors
from serving.errors import CallError


def signature(**types):
    return {
        alias: meta_graph_pb2.TensorInfo(
            dtype=types_pb2.DataType.Value(f"DT_{dtype}")
        )
        for alias, dtype in types.items()
    }


def read(body, **types):
    body = body if isinstance(body, bytes) else body.encode()
    return tensors.read(tensors.parse(body), signature(**types))


def is_array(array, values, dtype):
    expected = np.array(values, dtype)
    np.testing.assert_array_equal(array, expected, strict=True)


def test_rows_are_stacked():
    arrays = read('{"instances": [[1, 2.5, 3], [4, 5, 6]]}', x="FLOAT")
    is_array(arrays["x"], [[1, 2.5, 3], [4, 5, 6]], "float32")
    body = '{"instances": [{"a": 1, "b": [2]}, {"b": [4], "a": 3}]}'
    arrays = read(body, a="INT64", b="FLOAT")
    is_array(arrays["a"], [1, 3], "int64")
    is_array(arrays["b"], [[2], [4]], "float32")
    arrays = read('{"instances": [{"x": 7}, {"x": 8}]}', x="INT32")
    is_array(arrays["x"], [7, 8], "int32")


def test_columns_are_taken_as_they_are():
    is_array(read('{"inputs": 3}', x="INT64")["x"], 3, "int64")
    is_array(read('{"inputs": []}', x="INT64")["x"], [], "int64")
    arrays = read('{"inputs": [[], []]}', x="FLOAT")
    is_array(arrays["x"], [[], []], "float32")
    body = '{"inputs": {"a": [1, 2], "b": [[true]], "unknown": "?"}}'
    arrays = read(body, a="UINT8", b="BOOL")
    is_array(arrays["a"], [1, 2], "uint8")
    is_array(arrays["b"], [[True]], "bool")


def test_what_json_does_not_allow_is_taken_as_tensorflow_serving_does():
    body = '\ufeff \n{"inputs": [NaN, Infinity, -Infinity, 1e39]} trailing'
    arrays = read(body, x="FLOAT")
    is_array(arrays["x"], [np.nan, np.inf, -np.inf, np.inf], "float32")
    # A byte that is no UTF-8.
    array = read(b'{"inputs": ["\xff", "\xc3\xa4"]}', x="STRING")["x"]
    assert array.tolist() == [b"\xff", b"\xc3\xa4"]


def test_narrow_integers_wrap_within_int32():
    is_array(read('{"inputs": [300, -1]}', x="UINT8")["x"], [44, 255], "uint8")


def test_the_largest_integers_keep_every_bit():
    most = 2**63 - 1
    array = read(f'{{"instances": [{most}, {-most - 1}]}}', x="INT64")["x"]
    assert array.tolist() == [most, -most - 1]
    array = read(f'{{"inputs": [{2**64 - 1}]}}', x="UINT64")["x"]
    assert array.tolist() == [2**64 - 1]


def test_strings_and_base64():
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    body = f'{{"instances": ["b64", {{"b64": "{text}"}}, {{"b64": "YQ"}}]}}'
    array = read(body, x="STRING")["x"]
    assert array.tolist() == [b"b64", data, b"a"]
    assert array.dtype == object and array.shape == (3,)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("garbage", "JSON Parse error: Invalid value. at offset: 0"),
        ('{"inputs": [1', "JSON Parse error: "),
        (f'{{"inputs": {"[" * 50_000}', "JSON Parse error: "),
        (f'{{"inputs": 1{"0" * 400}}}', "JSON Parse error: Number too big"),
        (f'{{"inputs": 1{"0" * 9000}}}', "JSON Parse error: Number too big"),
        (f'{{"inputs": {"[" * 33}{"]" * 33}}}', "33 dimensions"),
        ("[1]", "JSON Value: [1] Is not object"),
        ('{"x": 1}', "Missing 'inputs' or 'instances' key"),
        (
            '{"inputs": 1, "instances": [1]}',
            "expecting only one of 'inputs' or 'instances' keys to exist",
        ),
        ('{"instances": 1}', "Expecting 'instances' to be an list/array"),
        ('{"instances": []}', "No values in 'instances' array"),
        (
            '{"instances": [[1], {"x": [1]}]}',
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            '{"instances": [{"x": [1]}, [1]]}',
            "Expecting object but got list at item 1 of input list",
        ),
        (
            '{"instances": [{"y": 1}]}',
            "JSON object: does not have named input: y",
        ),
        ('{"instances": [{}]}', "keys must be equal to: x"),
        (
            '{"instances": [[1, 2], [3]]}',
            "Failed to process element: 1 of 'instances' list. Error: "
            "INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1",
        ),
        (
            '{"instances": [[[1, 2]], [[1], [2]]]}',
            "Expecting shape [1,2] but got: [2,1]",
        ),
        (
            '{"instances": [[[1, 2], [3]]]}',
            "Encountered list at unexpected size: 1 at level: 1 expected "
            "size: 2",
        ),
        (
            '{"inputs": [1, [2]]}',
            "Encountered list at unexpected level: 1 expected < 1",
        ),
        (
            '{"inputs": [[1], 2]}',
            "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. "
            "Expected at level: 2",
        ),
        (
            '{"inputs": ["x"]}',
            'JSON Value: "x" Type: String is not of expected type: float',
        ),
        ('{"inputs": [1, true]}', "Type: True is not of expected type: float"),
        ('{"inputs": null}', "Type: Null is not of expected type: float"),
        ('{"inputs": {}}', "Missing named input: x in 'inputs' object."),
        (
            '{"inputs": {"b64": "YQ=="}}',
            "Type: Object is not of expected type: float",
        ),
    ],
)
def test_what_a_float_cannot_be(body, message):
    with pytest.raises(CallError) as caught:
        read(body, x="FLOAT")
    assert caught.value.code == "INVALID_ARGUMENT"
    assert message in caught.value.message
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("body", "dtype", "message"),
    [
        ("[1.0]", "INT64", "JSON Value: 1.0 Type: Number"),
        ("[1.0]", "INT32", "is not of expected type: int32"),
        ("[true]", "INT64", "is not of expected type: int64"),
        (f"[{2**63}]", "INT64", "is not of expected type: int64"),
        (f"[{2**31}]", "UINT8", "is not of expected type: uint8"),
        ("[-1]", "UINT64", "is not of expected type: uint64"),
        ("[1]", "BOOL", "is not of expected type: bool"),
        ("[1]", "STRING", "is not of expected type: string"),
        ('[{"b64": "?"}]', "STRING", "Unable to base64 decode"),
        ('[{"b64": 1}]', "STRING", "not formatted correctly for base64 data"),
        ('["\\ud800"]', "STRING", "The surrogate pair in string is invalid"),
    ],
)
def test_types_are_strict(body, dtype, message):
    with pytest.raises(CallError) as caught:
        read(f'{{"inputs": {body}}}', x=dtype)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert message in caught.value.message


@pytest.mark.parametrize("body", ["[1]", "[]"])
@pytest.mark.parametrize("dtype", ["HALF", "BFLOAT16", "COMPLEX64"])
def test_types_without_json(dtype, body):
    with pytest.raises(CallError) as caught:
        read(f'{{"inputs": {body}}}', x=dtype)
    assert caught.value.code == "UNIMPLEMENTED"
    assert "Conversion of JSON Value" in caught.value.message


def test_several_inputs_have_names():
    for body in ('{"instances": [1]}', '{"inputs": [1]}'):
        with pytest.raises(CallError, match="as multiple input tensors"):
            read(body, a="FLOAT", b="FLOAT")
    body = '{"instances": [{"a": 1, "b": 2}, {"a": 1, "b": [2]}]}'
    with pytest.raises(CallError, match="element: 1 key: b of 'instances'"):
        read(body, a="FLOAT", b="FLOAT")


def test_the_signature_name_is_a_string():
    assert tensors.signature_name({}) == ""
    assert tensors.signature_name({"signature_name": "s"}) == "s"
    with pytest.raises(CallError, match="must be a string value"):
        tensors.signature_name({"signature_name": 1})


def test_numbers_are_written_as_tensorflow_serving_does():
    numbers = [0.2, 1, 9e6, 3e-5, 1 / 3, 16777217, 3.4028235e38, 123456]
    written = replies.write({"x": np.array(numbers, "float32")}, "inputs")
    assert written.decode() == (
        '{\n    "outputs": [0.2, 1.0, 9e+06, 3e-05, 0.333333343, 16777216.0, '
        "3.40282347e+38, 123456.0]\n}"
    )
    special = np.array([np.nan, np.inf, -np.inf, 0.1, 1 / 3, -0.0])
    written = replies.write({"x": special}, "inputs").decode()
    assert "[NaN, Infinity, -Infinity, 0.1, 0.33333333333333331, -0.0]" in (
        written
    )


def test_floats_come_back_bit_by_bit():
    bits = np.random.default_rng(0).integers(0, 2**32, 5000, "uint64")
    floats = bits.astype("uint32").view("float32")
    written = replies.write({"x": floats}, "instances")
    back = read(written.replace(b"predictions", b"inputs"), x="FLOAT")["x"]
    np.testing.assert_array_equal(back, floats)


def test_replies_by_row_and_by_column():
    outputs = {
        "b": np.array([[1], [2]]),
        "a": np.array([True, False]),
    }
    assert json.loads(replies.write(outputs, "instances")) == {
        "predictions": [{"a": True, "b": [1]}, {"a": False, "b": [2]}]
    }
    assert json.loads(replies.write(outputs, "inputs")) == {
        "outputs": {"a": [True, False], "b": [[1], [2]]}
    }
    assert json.loads(replies.write({"x": np.array(3)}, "inputs")) == {
        "outputs": 3
    }


def test_arrays_without_elements():
    cases = {(0,): [], (0, 3): [], (2, 0): [[], []], (2, 0, 3): [[], []]}
    for shape, expected in cases.items():
        for form, key in (("inputs", "outputs"), ("instances", "predictions")):
            written = replies.write({"x": np.zeros(shape, "float32")}, form)
            assert json.loads(written) == {key: expected}


def test_only_names_of_bytes_are_base64():
    value = np.array([b'"\xff\n'], object)
    written = replies.write({"png_bytes": value}, "instances")
    assert json.loads(written) == {"predictions": [{"b64": "Iv8K"}]}
    # As in TensorFlow Serving, no JSON.
    written = replies.write({"png": value}, "inputs")
    assert written == b'{\n    "outputs": ["\\"\xff\\n"]\n}'


def test_outputs_that_have_no_json():
    half = np.zeros(1, "float16")
    with pytest.raises(CallError, match="for tensor type: half"):
        replies.write({"x": half}, "inputs")
    with pytest.raises(CallError, match="for tensor type: bfloat16"):
        replies.write({"x": half.astype(ml_dtypes.bfloat16)}, "inputs")
    with pytest.raises(CallError, match="x has no shape information"):
        replies.write({"x": np.array(1)}, "instances")
    uneven = {"a": np.zeros(2, "float32"), "b": np.zeros(3, "float32")}
    with pytest.raises(CallError, match="inconsistent batch size: 3 exp"):
        replies.write(uneven, "instances")


def test_a_mistake_among_many_numbers_is_found_without_arrays(monkeypatch):
    asked, leaf_array = [], tensors._leaf_array

    def noted(leaves, dtype):
        asked.append(len(leaves))
        return leaf_array(leaves, dtype)

    monkeypatch.setattr(tensors, "_leaf_array", noted)
    for number, dtype in (("0.5", "FLOAT"), ("-1", "FLOAT"), ("7", "INT64")):
        asked.clear()
        body = f'{{"inputs": [{f"{number}, " * 500} "x"]}}'
        with pytest.raises(CallError, match='Value: "x" Type: String'):
            read(body, x=dtype)
        # All at once, and then the one that is wrong.
        assert asked == [501, 1]
