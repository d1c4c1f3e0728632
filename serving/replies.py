"""JSON replies of arrays, by the rules of TensorFlow Serving's REST."""

import base64
import json
import math

import numpy as np

from serving.errors import invalid
from serving.tensors import FLOATS
from serving.tensors import INTEGERS
from serving.tensors import ROW
from serving.tensors import type_name

# Digits of a decimal number that keep every bit.
_EXACT = {"float32": 9, "float64": 17}


def write(arrays: dict[str, np.ndarray], form: str) -> bytes:
    """Returns the body of a reply: `predictions` by row, `outputs` by column.

    Args:
        arrays: outputs by alias; strings as bytes objects.
        form: that of the request, `ROW` or `COLUMN`.

    Raises:
        CallError: a type that JSON has no values for, or, by row, outputs
            that have no rows or not equally many.
    """
    names = sorted(arrays)
    if form == ROW:
        _check_rows(arrays, names)
    depth = 1 if form == ROW else 0
    texts = [
        _nested(_leaf_texts(arrays[name], name), arrays[name].shape, depth)
        for name in names
    ]
    if len(names) == 1:
        items = texts[0]
    else:
        keys = [json.dumps(name) for name in names]
        items = [_braces(keys, values) for values in zip(*texts, strict=True)]
    if form == ROW:
        text = f'{{\n    "predictions": [{", ".join(items)}\n    ]\n}}'
    else:
        text = f'{{\n    "outputs": {items[0]}\n}}'
    return text.encode("utf-8", "surrogateescape")


def _check_rows(arrays, names):
    count = None
    for name in names:
        shape = arrays[name].shape
        if not shape:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if count not in (None, shape[0]):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {shape[0]} "
                f"expecting: {count}"
            )
        count = shape[0]


def _leaf_texts(array, alias):
    """Returns a JSON text for each element, in order."""
    dtype = array.dtype.name
    values = array.ravel().tolist()
    if dtype in FLOATS:
        return _decimals(values, dtype)
    if dtype in INTEGERS:
        return list(map(str, values))
    if dtype == "bool":
        return ["true" if value else "false" for value in values]
    if dtype != "object":
        raise invalid(
            f"Failed to write JSON value for tensor type: {type_name(dtype)}"
        )
    if alias.endswith("_bytes"):
        encoded = (base64.b64encode(value).decode() for value in values)
        return [f'{{"b64": "{text}"}}' for text in encoded]
    # Bytes that are no UTF-8 pass as they are, as in TensorFlow Serving.
    texts = (value.decode("utf-8", "surrogateescape") for value in values)
    return [json.dumps(text, ensure_ascii=False) for text in texts]


def _decimals(values, dtype):
    """Returns numbers by six digits, or by as many as keep every bit."""
    # One formatting of all numbers takes a third of the time of many.
    short = ("%.6g " * len(values) % tuple(values)).split()
    exact = (f"%.{_EXACT[dtype]}g " * len(values) % tuple(values)).split()
    with np.errstate(over="ignore"):
        back = np.array(list(map(float, short)), "float64").astype(dtype)
    kept = (back == np.array(values, dtype)).tolist()
    return [
        _decimal(few if same else many)
        for few, many, same in zip(short, exact, kept, strict=True)
    ]


def _decimal(text):
    if "." in text or "e" in text:
        return text
    if math.isfinite(float(text)):
        return text + ".0"
    return {"inf": "Infinity", "-inf": "-Infinity"}.get(text, "NaN")


def _nested(texts, shape, depth):
    """Joins elements' texts to lists, until `depth` levels are left open."""
    for level in reversed(range(depth, len(shape))):
        size, count = shape[level], math.prod(shape[:level])
        groups = [texts[i * size : (i + 1) * size] for i in range(count)]
        texts = [f"[{', '.join(group)}]" for group in groups]
    return texts


def _braces(keys, values):
    pairs = zip(keys, values, strict=True)
    return "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
