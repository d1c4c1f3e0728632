"""The tf.Example contract that pipeline, training and serving share.

One record is one image file, not its pixels: PNG or JPEG bytes, what they
hold, and where they came from. Writing needs no TensorFlow, so that Beam
workers start fast; only `parse` and the scaling of tensors import it.
"""

import operator
from functools import cache

import numpy as np
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf.message import DecodeError

ENCODED = "image/encoded"
FORMAT = "image/format"
HEIGHT = "image/height"
WIDTH = "image/width"
FILENAME = "image/filename"
LABEL = "image/class/label"

# The label that `parse` returns for a record without one.
NO_LABEL = -1

# The bytes that a file of each format begins with.
_SIGNATURES = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
_INT64_MAX = 2**63 - 1


def encode(encoded, *, format, height, width, filename="", label=None):
    """Serializes one image file as a tf.Example, without TensorFlow.

    Equal arguments give equal bytes, on every machine and in every run.

    Args:
        encoded: bytes. The image file, PNG or JPEG.
        format: string. `"png"` or `"jpeg"`; must agree with the bytes.
        height: int. Height of the image in pixels, at least 1.
        width: int. Width of the image in pixels, at least 1.
        filename: string. Where the image came from; may be empty.
        label: int or `None`. Class of the image, at least 0. `None` leaves
            the feature out.

    Returns:
        bytes. A serialized `tf.train.Example`.

    Raises:
        ValueError: if an argument breaks its rule above.
    """
    _check_image(encoded, format)
    if not isinstance(filename, str):
        raise ValueError(f"{FILENAME} must be a string, got {filename!r}.")
    example = _example_class()()
    feature = example.features.feature
    feature[ENCODED].bytes_list.value.append(encoded)
    feature[FORMAT].bytes_list.value.append(format.encode())
    feature[HEIGHT].int64_list.value.append(_integer(HEIGHT, height, 1))
    feature[WIDTH].int64_list.value.append(_integer(WIDTH, width, 1))
    # Python reads a file name that is not UTF-8 with surrogate escapes; the
    # record gets the bytes that the name has on disk.
    feature[FILENAME].bytes_list.value.append(
        filename.encode("utf-8", "surrogateescape")
    )
    if label is not None:
        feature[LABEL].int64_list.value.append(_integer(LABEL, label, 0))
    # A map has no order of its own: deterministic sorts its keys.
    return example.SerializeToString(deterministic=True)


def decode(serialized: bytes) -> dict:
    """Inverts `encode`, without TensorFlow and without decoding the image.

    Returns:
        A dict of `encode`'s arguments; `label` is `None` without one.

    Raises:
        ValueError: if the bytes are not what `encode` makes.
    """
    try:
        example = _example_class().FromString(serialized)
    except DecodeError:
        raise ValueError("a record must be a tf.Example.") from None
    values = {
        key: _only_value(key, feature)
        for key, feature in example.features.feature.items()
    }
    missing = {ENCODED, FORMAT, HEIGHT, WIDTH, FILENAME} - values.keys()
    if missing:
        raise ValueError(f"a record must have {min(missing)}.")
    found = {
        "encoded": values[ENCODED],
        "format": values[FORMAT].decode("ascii", "replace"),
        "height": values[HEIGHT],
        "width": values[WIDTH],
        "filename": values[FILENAME].decode("utf-8", "surrogateescape"),
        "label": values.get(LABEL),
    }
    # Whatever `encode` refuses is refused here.
    encode(**found)
    return found


def _only_value(key, feature):
    """Returns a feature's one value, bytes or int as its key has it."""
    bytes_keys = (ENCODED, FORMAT, FILENAME)
    field = feature.bytes_list if key in bytes_keys else feature.int64_list
    if len(field.value) != 1:
        raise ValueError(f"{key} must have one value, got {len(field.value)}.")
    return field.value[0]


def parse(serialized, channels=3):
    """Parses and decodes one record, eagerly or inside `tf.data`'s `map`.

    Args:
        serialized: bytes or scalar string tensor. What `encode` returned.
        channels: int. 1 or 3; an image with another number is converted.

    Returns:
        A dict of tensors: `"image"`, uint8 in [0, 255] of shape
        `(height, width, channels)`; `"label"`, scalar int64, -1 if the record
        has none; `"filename"`, scalar string.

    Raises:
        ValueError: if `channels` is neither 1 nor 3.
        tf.errors.InvalidArgumentError: if the record is broken, lacks the
            image, or the image cannot be decoded. TensorFlow quotes a broken
            record, so bytes that are not text raise `UnicodeDecodeError`.
    """
    import tensorflow as tf

    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}.")
    features = tf.io.parse_single_example(
        serialized,
        {
            ENCODED: tf.io.FixedLenFeature([], tf.string),
            FILENAME: tf.io.FixedLenFeature([], tf.string, ""),
            LABEL: tf.io.FixedLenFeature([], tf.int64, NO_LABEL),
        },
    )
    image = tf.io.decode_image(
        features[ENCODED], channels=channels, expand_animations=False
    )
    image = tf.ensure_shape(image, (None, None, channels))
    label, filename = features[LABEL], features[FILENAME]
    return {"image": image, "label": label, "filename": filename}


def to_unit_range(images):
    """Scales pixels to the range of the networks: `x / 127.5 - 1`.

    Args:
        images: uint8 array or tensor in [0, 255], of any shape. An array
            needs no TensorFlow.

    Returns:
        float32 array or tensor in [-1, 1], of the same shape.

    Raises:
        ValueError: if `images` is not uint8.
    """
    if isinstance(images, np.ndarray):
        _check_uint8(images.dtype.name)
        return images.astype(np.float32) / np.float32(127.5) - np.float32(1)

    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    _check_uint8(images.dtype.name)
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def to_uint8(images):
    """Inverts `to_unit_range`: clips to [-1, 1], rounds half to even.

    Args:
        images: floating array or tensor of any shape; what lies outside
            [-1, 1] is clipped. An array needs no TensorFlow.

    Returns:
        uint8 array or tensor in [0, 255], of the same shape.

    Raises:
        ValueError: if `images` is not floating, or an array that holds NaN.
            Tensors are not searched for NaN.
    """
    if isinstance(images, np.ndarray):
        _check_floating(images.dtype.name)
        # In float32 whatever the input, as for tensors.
        images = np.clip(images.astype(np.float32), -1, 1)
        if np.isnan(images).any():
            raise ValueError("images must be free of NaN, got NaN.")
        return np.rint((images + 1) * np.float32(127.5)).astype(np.uint8)

    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    _check_floating(images.dtype.name)
    images = tf.clip_by_value(tf.cast(images, tf.float32), -1.0, 1.0)
    return tf.cast(tf.round((images + 1.0) * 127.5), tf.uint8)


def _check_image(encoded, format):
    if not isinstance(encoded, bytes):
        raise ValueError(
            f"{ENCODED} must be bytes, got {type(encoded).__name__}."
        )
    if format not in _SIGNATURES:
        raise ValueError(
            f"{FORMAT} must be one of {', '.join(_SIGNATURES)}, got {format!r}."
        )
    if not encoded.startswith(_SIGNATURES[format]):
        raise ValueError(
            f"{ENCODED} must be a {format} file as {FORMAT} says, got bytes "
            f"that begin with {encoded[:8]!r}."
        )


def _integer(key, value, least):
    """Returns `value` as an int; NumPy's integers count, booleans do not."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ValueError(f"{key} must be an integer, got {value!r}.")
    if not least <= number <= _INT64_MAX:
        raise ValueError(
            f"{key} must lie between {least} and {_INT64_MAX}, got {value!r}."
        )
    return number


def _check_uint8(dtype):
    if dtype != "uint8":
        raise ValueError(f"images must be uint8 in [0, 255], got {dtype}.")


def _check_floating(dtype):
    # By name: NumPy does not count bfloat16 among its floating types.
    if "float" not in dtype:
        raise ValueError(f"images must be floating in [-1, 1], got {dtype}.")


@cache
def _example_class():
    """Builds the message class of tf.train.Example from its public schema.

    The pool is private: TensorFlow registers the same names in the default
    one, and would collide with ours.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_schema())
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("tensorflow.Example")
    )


def _schema():
    """Returns tensorflow/core/example/{example,feature}.proto as one file."""
    kind = descriptor_pb2.FieldDescriptorProto
    schema = descriptor_pb2.FileDescriptorProto(
        name="transgan_tf/example.proto", package="tensorflow", syntax="proto3"
    )
    _add_list(schema, "BytesList", kind.TYPE_BYTES)
    _add_list(schema, "FloatList", kind.TYPE_FLOAT)
    _add_list(schema, "Int64List", kind.TYPE_INT64)
    feature = schema.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes", "float", "int64"), start=1):
        type_name = f"{name.capitalize()}List"
        field = _add_field(feature, f"{name}_list", number, type_name)
        field.oneof_index = 0
    features = schema.message_type.add(name="Features")
    # What `map<string, Feature> feature = 1` stands for.
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    _add_field(entry, "key", 1, kind.TYPE_STRING)
    _add_field(entry, "value", 2, "Feature")
    field = _add_field(features, "feature", 1, "Features.FeatureEntry")
    field.label = kind.LABEL_REPEATED
    example = schema.message_type.add(name="Example")
    _add_field(example, "features", 1, "Features")
    return schema


def _add_list(schema, name, type):
    message = schema.message_type.add(name=name)
    field = _add_field(message, "value", 1, type)
    field.label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED


def _add_field(message, name, number, type):
    """Adds a field; `type` is a scalar's constant or a message's name."""
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_OPTIONAL
    if isinstance(type, str):
        field.type = field.TYPE_MESSAGE
        field.type_name = f".tensorflow.{type}"
    else:
        field.type = type
    return field
