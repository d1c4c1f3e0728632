"""Arrays of JSON requests, by the rules of TensorFlow Serving's REST interface.

A request's body has its tensors by row, `{"instances": [...]}`, or by column,
`{"inputs": ...}`. What breaks a rule is told in TensorFlow Serving's words.
"""

import base64
import binascii
import itertools
import json
import re

import numpy as np
import tensorflow as tf

from serving.errors import CallError
from serving.errors import invalid

ROW, COLUMN = "instances", "inputs"

# Which JSON numbers a type takes. Narrow integers take all of int32 and wrap.
INTEGERS = {
    "int8": (-(2**31), 2**31),
    "int16": (-(2**31), 2**31),
    "int32": (-(2**31), 2**31),
    "uint8": (-(2**31), 2**31),
    "int64": (-(2**63), 2**63),
    "uint32": (0, 2**32),
    "uint64": (0, 2**64),
}
FLOATS = ("float32", "float64")
# As TensorFlow Serving calls them; the others' names are NumPy's.
_NAMES = {"float32": "float", "float64": "double", "float16": "half"}
_JSON_TYPES = {
    type(None): "Null",
    bool: "",
    dict: "Object",
    list: "Array",
    str: "String",
}
_SHOWN = 256
# With more of them TensorFlow crashes on strings, though NumPy allows 64.
MOST_DIMENSIONS = 32


def check_dimensions(count: int) -> None:
    """Raises INVALID_ARGUMENT for a tensor of more than `MOST_DIMENSIONS`."""
    if count > MOST_DIMENSIONS:
        raise invalid(f"a tensor of {count} dimensions is not supported")


def parse(body: bytes) -> dict:
    """Reads a request's body; what follows the JSON object is ignored.

    Raises:
        CallError: the body is no JSON object.
    """
    # Like TensorFlow Serving, lets bytes that are no UTF-8 pass.
    text = body.decode("utf-8-sig", "surrogateescape")
    if not text:
        raise invalid("JSON Parse error: The document is empty")
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        wrong = "Invalid value." if error.pos <= start else error.msg
        raise invalid(
            f"JSON Parse error: {wrong} at offset: {error.pos}"
        ) from None
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError:
        # A whole number of more digits than Python converts.
        raise invalid(_TOO_BIG) from None
    if not isinstance(document, dict):
        raise _wrong(document, "Is not object")
    return document


def signature_name(document: dict) -> str:
    """Returns the name that a request gives, or "".

    Raises:
        CallError: it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _wrong(
            document,
            "not formatted correctly. 'signature_name' key must be a string "
            "value.",
        )
    return name


def request_format(document: dict) -> str:
    """Returns `ROW` or `COLUMN`.

    Raises:
        CallError: the request has neither, or both.
    """
    formats = [key for key in (ROW, COLUMN) if key in document]
    if len(formats) == 2:
        raise _wrong(
            document,
            "Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist ",
        )
    if not formats:
        raise invalid("Missing 'inputs' or 'instances' key")
    if formats == [ROW]:
        if not isinstance(document[ROW], list):
            raise _wrong(document, "Expecting 'instances' to be an list/array")
        if not document[ROW]:
            raise _wrong(document, "No values in 'instances' array")
    return formats[0]


def count_rows(document: dict, inputs) -> dict[str, int]:
    """Returns how long the lists of a request are, by alias.

    Args:
        document: a request's JSON.
        inputs: by alias, of the signature.

    Raises:
        CallError: as `request_format` does.
    """
    values = document[request_format(document)]
    if not isinstance(values, dict):
        values = {min(inputs): values}
    # A message refuses to be asked for names that are no text.
    return {
        alias: len(values[alias])
        for alias in inputs
        if isinstance(values.get(alias), list)
    }


def read(document: dict, inputs) -> dict[str, np.ndarray]:
    """Returns the arrays of a request by alias.

    Args:
        document: a request's JSON.
        inputs: `TensorInfo` by alias, of the signature.

    Raises:
        CallError: INVALID_ARGUMENT, or UNIMPLEMENTED for a type that JSON
            has no values for.
    """
    types = {
        alias: tf.as_dtype(info.dtype).name for alias, info in inputs.items()
    }
    names = sorted(types)
    try:
        if request_format(document) == ROW:
            return _read_rows(document[ROW], names, types)
        return _read_columns(document[COLUMN], names, types)
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None


def _read_rows(rows, names, types):
    if not isinstance(rows[0], dict) and len(names) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as "
            "multiple input tensors required as per tensorinfo_map"
        )
    named = _is_object(rows[0])
    for number, row in enumerate(rows):
        if _is_object(row) != named:
            kinds = ("object", "list") if named else ("value/list", "object")
            raise invalid(
                f"Expecting {kinds[0]} but got {kinds[1]} at item {number} of "
                "input list"
            )
    if not named:
        return {names[0]: _stack(rows, names[0], types, "")}
    wanted = types.keys()
    for number, row in enumerate(rows):
        if row.keys() != wanted:
            raise _wrong_keys(number, row, names)
    columns = {name: [row[name] for row in rows] for name in names}
    return {
        name: _stack(column, name, types, f" key: {name}")
        for name, column in columns.items()
    }


def _wrong_keys(number, row, names):
    unknown = [key for key in row if key not in names]
    if unknown:
        return invalid(
            f"Failed to process element: {number} key: {unknown[0]} of "
            "'instances' list. Error: INVALID_ARGUMENT: JSON object: does not "
            f"have named input: {unknown[0]}"
        )
    return invalid(
        f"Failed to process element: {number} of 'instances' list. JSON "
        f"object: {_shown(row)} keys must be equal to: {','.join(names)}"
    )


def _stack(rows, name, types, key):
    """Returns the array of equal rows; names the first that differs."""
    try:
        return _dense(rows, types[name])
    except CallError as error:
        whole = error
    size = shape = None
    for number, row in enumerate(rows):
        try:
            array = _dense(row, types[name])
            if size is None:
                size, shape = array.size, array.shape
            if array.size != size:
                raise invalid(
                    f"Expecting tensor size: {size} but got: {array.size}"
                )
            if array.shape != shape:
                raise invalid(
                    f"Expecting shape {_brackets(shape)} but got: "
                    f"{_brackets(array.shape)}"
                )
        except CallError as error:
            if error.code != "INVALID_ARGUMENT":
                raise
            raise invalid(
                f"Failed to process element: {number}{key} of 'instances' "
                f"list. Error: {error.code}: {error.message}"
            ) from None
    raise whole


def _read_columns(value, names, types):
    if not _is_object(value):
        if len(names) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as "
                "multiple input tensors required as per tensorinfo_map"
            )
        return {names[0]: _dense(value, types[names[0]])}
    for name in names:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _dense(value[name], types[name]) for name in names}


def _dense(value, dtype):
    """Returns the array of a JSON value.

    Whole levels at a time, by functions that run in C; a value that breaks a
    rule is then looked for one by one.
    """
    shape, level = [], value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    check_dimensions(len(shape))
    leaves = [value]
    for size in shape:
        if set(map(type, leaves)) != {list} or set(map(len, leaves)) != {size}:
            _explain(value, shape, 0, dtype)
        leaves = list(itertools.chain.from_iterable(leaves))
    try:
        return _leaf_array(leaves, dtype).reshape(shape)
    except _WrongLeaf:
        _explain(value, shape, 0, dtype)
        raise


class _WrongLeaf(Exception):
    """Some value is not of the type."""


def _leaf_array(leaves, dtype):
    kinds = set(map(type, leaves))
    if dtype == "string":
        array = np.empty(len(leaves), object)
        array[:] = [_to_bytes(leaf) for leaf in leaves]
        return array
    if dtype in FLOATS and kinds <= {int, float}:
        try:
            wide = np.array(leaves, "float64")
        except OverflowError:
            raise invalid(_TOO_BIG) from None
        with np.errstate(over="ignore"):
            return wide.astype(dtype)
    if dtype in INTEGERS and kinds <= {int}:
        low, high = INTEGERS[dtype]
        if not leaves or (min(leaves) >= low and max(leaves) < high):
            wide = "uint64" if dtype == "uint64" else "int64"
            return np.array(leaves, wide).astype(dtype)
    if dtype == "bool" and kinds <= {bool}:
        return np.array(leaves, "bool")
    if not leaves:
        raise _unimplemented([], dtype)
    raise _WrongLeaf


def _to_bytes(leaf):
    if isinstance(leaf, str):
        try:
            return leaf.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise invalid(
                "JSON Parse error: The surrogate pair in string is invalid."
            ) from None
    if not _is_base64(leaf):
        raise _WrongLeaf
    # Like TensorFlow Serving's decoder, takes text without its padding.
    text = re.sub(r"\s|=+\s*$", "", leaf["b64"])
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("Unable to base64 decode") from None


def _explain(value, shape, depth, dtype):
    """Raises the error of the first value that breaks a rule."""
    if isinstance(value, list):
        if depth >= len(shape):
            raise invalid(
                f"Encountered list at unexpected level: {depth} expected < "
                f"{len(shape)}"
            )
        if len(value) != shape[depth]:
            raise invalid(
                f"Encountered list at unexpected size: {len(value)} at level: "
                f"{depth} expected size: {shape[depth]}"
            )
        for item in value:
            _explain(item, shape, depth + 1, dtype)
        return
    if depth == len(shape) and _is_plain(value, dtype):
        return
    if depth != len(shape):
        raise _wrong(
            value,
            f"found at incorrect level: {depth + 1} in the JSON DOM. Expected "
            f"at level: {len(shape)}",
        )
    try:
        _leaf_array([value], dtype)
    except _WrongLeaf:
        raise _wrong_type(value, dtype) from None


def _is_plain(value, dtype):
    """Whether it is surely right, as most are: an array of each takes long."""
    if type(value) is float:
        return dtype in FLOATS
    if type(value) is int and (dtype in FLOATS or dtype in INTEGERS):
        low, high = INTEGERS.get(dtype, (-(2**63), 2**63))
        return low <= value < high
    return False


def _unimplemented(value, dtype):
    return CallError(
        "UNIMPLEMENTED",
        f"Conversion of JSON Value: {_shown(value)} to type: "
        f"{type_name(dtype)}",
    )


def _wrong_type(value, dtype):
    if dtype not in (*FLOATS, *INTEGERS, "bool", "string"):
        return _unimplemented(value, dtype)
    if dtype == "string" and isinstance(value, dict):
        return _wrong(value, "not formatted correctly for base64 data")
    kind = _JSON_TYPES.get(type(value), "Number") or str(value)
    return _wrong(
        value, f"Type: {kind} is not of expected type: {type_name(dtype)}"
    )


def _is_object(value):
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value):
    return (
        isinstance(value, dict)
        and len(value) == 1
        and isinstance(value.get("b64"), str)
    )


def type_name(dtype: str) -> str:
    """Returns what TensorFlow Serving calls a type that NumPy names."""
    return _NAMES.get(dtype, dtype)


def _brackets(shape):
    return f"[{','.join(map(str, shape))}]"


def _wrong(value, what):
    return invalid(f"JSON Value: {_shown(value)} {what}")


def _shown(value):
    """Returns the beginning of a value's JSON."""
    text = ""
    for part in json.JSONEncoder().iterencode(value):
        text += part[:_SHOWN]
        if len(text) >= _SHOWN:
            break
    return text[:_SHOWN]


_TOO_BIG = "JSON Parse error: Number too big to be stored in double."
