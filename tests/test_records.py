"""The record contract: what is written, read back, scaled and refused."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from transgan_tf import records

PNG = b"\x89PNG\r\n\x1a\n and more"


def make_pixels(height=5, width=7, channels=3):
    """Returns (height, width, channels) uint8 noise."""
    generator = np.random.default_rng(0)
    shape = (height, width, channels)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def make_file(pixels, format="png"):
    """Returns the pixels as an image file's bytes."""
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def make_record(pixels, **features):
    height, width, _ = pixels.shape
    return records.encode(
        make_file(pixels), format="png", height=height, width=width, **features
    )


def make_example(**features):
    """Builds a `tf.train.Example` by hand from `{key: (kind, value)}`."""
    example = tf.train.Example()
    for key, (kind, value) in features.items():
        getattr(example.features.feature[key], kind).value.append(value)
    return example


@pytest.mark.parametrize("label", [None, 0, 3, 2**63 - 1])
def test_encode_writes_tensorflows_example_bit_for_bit(label):
    expected = {
        "image/encoded": ("bytes_list", PNG),
        "image/format": ("bytes_list", b"png"),
        "image/height": ("int64_list", 5),
        "image/width": ("int64_list", 300),
        "image/filename": ("bytes_list", "d\u00e9j\u00e0/vu.png".encode()),
    }
    if label is not None:
        expected["image/class/label"] = ("int64_list", label)
    expected = make_example(**expected)
    encoded = records.encode(
        PNG,
        format="png",
        height=5,
        width=300,
        filename="d\u00e9j\u00e0/vu.png",
        label=label,
    )
    assert tf.train.Example.FromString(encoded) == expected
    assert encoded == expected.SerializeToString(deterministic=True)


def test_schema_has_tensorflows_fields():
    ours = records._example_class().DESCRIPTOR.file.message_types_by_name
    theirs = (
        tf.train.Example,
        tf.train.Features,
        tf.train.Feature,
        tf.train.BytesList,
        tf.train.FloatList,
        tf.train.Int64List,
    )
    assert set(ours) == {message.DESCRIPTOR.name for message in theirs}
    for message in theirs:
        fields = [
            [(f.name, f.number, f.type, f.is_repeated) for f in side.fields]
            for side in (ours[message.DESCRIPTOR.name], message.DESCRIPTOR)
        ]
        assert fields[0] == fields[1]


def test_encode_keeps_the_bytes_of_a_filename_that_is_not_utf8():
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    encoded = records.encode(
        PNG, format="png", height=1, width=1, filename=name
    )
    feature = tf.train.Example.FromString(encoded).features.feature
    assert feature["image/filename"].bytes_list.value == [b"caf\xe9.png"]


def test_encode_takes_numpy_integers():
    sizes = {"height": np.int32(5), "width": np.uint8(7)}
    plain = {"height": 5, "width": 7}
    assert records.encode(PNG, format="png", **sizes) == records.encode(
        PNG, format="png", **plain
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoded": "text"}, "image/encoded must be bytes, got str"),
        ({"encoded": b""}, "image/encoded must be a png file.*b''"),
        ({"encoded": b"GIF89a"}, "image/encoded must be a png .*b'GIF89a'"),
        ({"format": "jpeg"}, "image/encoded must be a jpeg file"),
        ({"format": "PNG"}, "image/format must be one of jpeg, png.*'PNG'"),
        ({"height": 0}, "image/height must lie between 1 and .*got 0"),
        ({"width": -3}, "image/width must lie between 1 and .*got -3"),
        ({"width": 7.0}, "image/width must be an integer, got 7.0"),
        ({"height": True}, "image/height must be an integer, got True"),
        ({"filename": b"a.png"}, "image/filename must be a string, got b'a"),
        ({"label": -1}, "image/class/label must lie between 0 and .*got -1"),
        ({"label": 2**63}, "image/class/label must lie between 0"),
        ({"label": "3"}, "image/class/label must be an integer, got '3'"),
    ],
)
def test_encode_refuses(changes, message):
    arguments = {"encoded": PNG, "format": "png", "height": 5, "width": 7}
    arguments.update(changes)
    with pytest.raises(ValueError, match=message):
        records.encode(arguments.pop("encoded"), **arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mapped", [False, True], ids=["eager", "tf.data"])
def test_parse_returns_what_was_encoded(channels, mapped):
    pixels = make_pixels(channels=channels)
    record = make_record(pixels, filename="a/b.png", label=11)
    if mapped:
        dataset = tf.data.Dataset.from_tensors(record)
        dataset = dataset.map(lambda r: records.parse(r, channels))
        spec = dataset.element_spec["image"]
        assert spec.shape.as_list() == [None, None, channels]
        parsed = next(iter(dataset))
    else:
        parsed = records.parse(record, channels)
    assert set(parsed) == {"image", "label", "filename"}
    assert parsed["image"].dtype == tf.uint8
    np.testing.assert_array_equal(parsed["image"], pixels)
    assert parsed["label"].dtype == tf.int64
    assert parsed["label"].numpy() == 11
    assert parsed["filename"].numpy() == b"a/b.png"


def test_parse_fills_in_what_is_absent():
    parsed = records.parse(make_record(make_pixels()))
    assert parsed["label"].numpy() == -1
    assert parsed["filename"].numpy() == b""


def test_parse_decodes_jpeg():
    pixels = np.full((5, 7, 3), 100, np.uint8)
    record = records.encode(
        make_file(pixels, "jpeg"), format="jpeg", height=5, width=7
    )
    image = records.parse(record)["image"]
    np.testing.assert_allclose(image, pixels, atol=1)


def test_parse_converts_between_grey_and_colour():
    grey = make_pixels(channels=1)
    image = records.parse(make_record(grey), channels=3)["image"]
    np.testing.assert_array_equal(image, np.repeat(grey, 3, axis=-1))
    colour = np.repeat(grey, 3, axis=-1)
    image = records.parse(make_record(colour), channels=1)["image"]
    np.testing.assert_allclose(image, grey, atol=1)


def test_parse_refuses():
    record = make_record(make_pixels())
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 4"):
        records.parse(record, channels=4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="parse example"):
        records.parse(b"not a record")
    with pytest.raises(UnicodeDecodeError):
        records.parse(record[:-9])
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        records.parse(b"")
    broken = records.encode(PNG, format="png", height=5, width=7)
    with pytest.raises(tf.errors.InvalidArgumentError):
        records.parse(broken)


def as_array(values):
    return np.asarray(values)


def as_graph(function):
    """Runs the scaling as it runs in `tf.data` and in served graphs."""
    return lambda x: tf.function(function)(tf.constant(x)).numpy()


@pytest.fixture(params=["array", "eager", "graph"])
def scaling(request):
    """The pair, as functions from array to array."""
    pair = records.to_unit_range, records.to_uint8
    if request.param == "array":
        return pair
    if request.param == "graph":
        return tuple(map(as_graph, pair))
    return tuple(
        lambda x, function=function: function(tf.constant(x)).numpy()
        for function in pair
    )


def test_every_pixel_value_survives_the_round_trip(scaling):
    to_unit_range, to_uint8 = scaling
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64, 1)
    unit = to_unit_range(pixels)
    assert unit.dtype == np.float32
    assert unit.shape == pixels.shape
    assert unit.min() == -1
    assert unit.max() == 1
    restored = to_uint8(unit)
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, pixels)


def test_to_unit_range_by_hand(scaling):
    unit = scaling[0](np.array([0, 51, 102, 153, 204, 255], np.uint8))
    expected = [-1, -0.6, -0.2, 0.2, 0.6, 1]
    np.testing.assert_allclose(unit, expected, atol=1e-6)


def test_to_uint8_by_hand(scaling):
    images = np.array([-1, -0.5, 0, 0.5, 0.996, 0.997, 1], np.float32)
    # -0.5 is 63.75; 0 is 127.5, whose even neighbour is 128; 0.5 is 191.25;
    # 0.996 is 254.49 and 0.997 is 254.62.
    expected = [0, 64, 128, 191, 254, 255, 255]
    np.testing.assert_array_equal(scaling[1](images), expected)


def test_to_uint8_rounds_half_to_even(scaling):
    # Float32 numbers that stand for exactly 64.5, 65.5, 66.5 and 127.5.
    images = np.array([-0.49411765, -0.4862745, -0.47843137, 0], np.float32)
    halves = (images + 1) * np.float32(127.5)
    np.testing.assert_array_equal(halves, [64.5, 65.5, 66.5, 127.5])
    np.testing.assert_array_equal(scaling[1](images), [64, 66, 66, 128])


def test_to_uint8_clips(scaling):
    images = np.array([-np.inf, -7, -1.001, 1.001, 3, np.inf], np.float32)
    expected = [0, 0, 0, 255, 255, 255]
    np.testing.assert_array_equal(scaling[1](images), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_to_uint8_takes_every_floating_type(dtype):
    images = tf.constant([-1, 0, 1], dtype)
    np.testing.assert_array_equal(records.to_uint8(images), [0, 128, 255])
    restored = records.to_uint8(images.numpy())
    np.testing.assert_array_equal(restored, [0, 128, 255])


@pytest.mark.parametrize("wrap", [as_array, tf.constant])
def test_scaling_refuses_the_wrong_type(wrap):
    with pytest.raises(ValueError, match="must be uint8 .*got float32"):
        records.to_unit_range(wrap(np.zeros(3, np.float32)))
    for dtype in (np.uint8, np.int64, bool):
        name = np.dtype(dtype).name
        with pytest.raises(ValueError, match=f"must be floating .*{name}"):
            records.to_uint8(wrap(np.zeros(3, dtype)))


def test_to_uint8_refuses_nan_in_an_array():
    with pytest.raises(ValueError, match="images must be free of NaN"):
        records.to_uint8(np.array([0, np.nan], np.float32))
