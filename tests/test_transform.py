"""From a source's bytes to a stored image."""

import dataclasses
import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL import ImageCms
from PIL import PngImagePlugin

from pipeline.transform import BadImage
from pipeline.transform import Filtered
from pipeline.transform import make_image
from tests.photos import BROKEN
from tests.photos import crop
from tests.photos import encoded
from tests.photos import sound_files
from transgan_tf.images import fit_image
from transgan_tf.manifest import DatasetSettings

SETTINGS = DatasetSettings(16)


def pixels(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image)


def made(data, **settings):
    return make_image(data, dataclasses.replace(SETTINGS, **settings))


def flipped(data, place, bit=0):
    """Returns bytes of which one bit is another."""
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize("name", sound_files())
def test_pixels_are_those_of_training_from_a_folder(name):
    data = sound_files()[name]
    with Image.open(io.BytesIO(data)) as image:
        expected = fit_image(image, 16, 3)
    image = made(data)
    np.testing.assert_array_equal(pixels(image.encoded), expected)
    counts = [np.bincount(c.ravel(), minlength=256) for c in expected.T]
    np.testing.assert_array_equal(image.histogram, counts)


def test_the_size_before_is_that_of_the_upright_image():
    assert made(sound_files()["photo.jpg"]).source_size == (45, 31)
    assert made(sound_files()["turned.jpg"]).source_size == (31, 45)


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_why(name):
    data, stage, reason = BROKEN[name]
    with pytest.raises(BadImage) as error:
        made(data)
    assert error.value.stage == stage
    assert reason in error.value.reason


def test_bytes_that_fit_already_are_kept():
    square = crop(3, 16, 16)
    # Not what Pillow would write by itself.
    png = encoded(square, compress_level=1)
    assert made(png).encoded == png
    jpeg = encoded(square, "JPEG", quality=50)
    assert made(jpeg, format="jpeg").encoded == jpeg
    grey = encoded(square[..., 0])
    assert made(grey, channels=1).encoded == grey


@pytest.mark.parametrize(
    "data",
    [
        encoded(crop(3, 16, 17)),
        encoded(crop(3, 16, 16)[..., 0]),
        encoded(crop(3, 16, 16), "JPEG"),
        encoded(Image.fromarray(crop(3, 16, 16)).convert("RGBA")),
        encoded(Image.fromarray(crop(3, 16, 16)).quantize(8)),
        encoded(Image.fromarray(crop(3, 16, 16)), "WEBP", lossless=True),
        encoded(crop(3, 16, 16), "PNG", transparency=(0, 0, 0)),
    ],
    ids=["size", "grey", "jpeg", "alpha", "palette", "webp", "transparent"],
)
def test_bytes_that_do_not_are_made_anew(data):
    with Image.open(io.BytesIO(made(data).encoded)) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert image.size == (16, 16)
    assert made(data).encoded != data


def test_a_turned_or_deep_file_is_not_kept():
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encoded(crop(3, 16, 16), exif=exif)
    stored = pixels(made(turned).encoded)
    np.testing.assert_array_equal(stored, crop(3, 16, 16)[::-1, ::-1])
    few = Image.fromarray(crop(3, 16, 16)[..., 0]).quantize(4).convert("L")
    shallow = encoded(few.convert("1"))
    assert pixels(made(shallow, channels=1).encoded).dtype == np.uint8


def chunk(name, content):
    checksum = zlib.crc32(name + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + name + content + checksum


PNG = encoded(crop(3, 16, 16))
JPEG = encoded(crop(3, 16, 16), "JPEG")
# The signature, and the header's chunk.
BEFORE, HEADER, AFTER = PNG[:8], PNG[8:33], PNG[33:]
REFUSED = {
    "a png without its end": PNG[:-12],
    "a png whose pixels have another checksum": flipped(PNG, -13),
    "a png whose header is not first": BEFORE
    + chunk(b"tEXt", b"a\0b")
    + HEADER
    + AFTER,
    "a png with two headers": BEFORE + HEADER + HEADER + AFTER,
    "a png with a chunk nobody knows": BEFORE
    + HEADER
    + chunk(b"ABCD", b"")
    + AFTER,
    "a png packed in another way": BEFORE
    + chunk(b"IHDR", flipped(HEADER, 18)[8:-4])
    + AFTER,
    "a jpeg whose end is damaged": JPEG[:-2] + bytes(2),
    "a jpeg whose last byte is damaged": flipped(JPEG, -1, 2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pillow_reads_and_tensorflow_refuses_is_made_anew(name):
    data = REFUSED[name]
    format = name.split()[1]
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.io.decode_image(data)
    np.testing.assert_array_equal(
        pixels(data), pixels({"png": PNG, "jpeg": JPEG}[format])
    )
    image = made(data, format=format)
    assert image.encoded != data
    decoded = tf.io.decode_image(image.encoded)
    tolerance = {"png": 0, "jpeg": 40}[format]
    np.testing.assert_allclose(
        decoded, pixels(data).astype(int), atol=tolerance
    )


def test_jpeg_is_counted_as_stored():
    image = made(encoded(crop(8, 40, 40)), format="jpeg", quality=30)
    stored = pixels(image.encoded)
    counts = [np.bincount(c.ravel(), minlength=256) for c in stored.T]
    np.testing.assert_array_equal(image.histogram, counts)
    larger = made(encoded(crop(8, 40, 40)), format="jpeg", quality=95)
    assert len(larger.encoded) > len(image.encoded)


def with_metadata(image, format):
    """Returns a file that carries all that Pillow writes of a source."""
    profile = ImageCms.createProfile("sRGB")
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {
        "icc_profile": ImageCms.ImageCmsProfile(profile).tobytes(),
        "exif": exif,
    }
    if format == "JPEG":
        options |= {"dpi": (300, 300), "comment": "by someone"}
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "someone")
        text.add(b"gAMA", (45_455).to_bytes(4, "big"))
        options |= {"dpi": (300, 300), "pnginfo": text}
    return encoded(image, format, **options)


@pytest.mark.parametrize("stored", ["png", "jpeg"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_metadata_of_the_source_is_not_stored(format, stored):
    image = Image.fromarray(crop(4, 40, 40))
    told, plain = with_metadata(image, format), encoded(image, format)
    np.testing.assert_array_equal(pixels(told), pixels(plain))
    assert (
        made(told, format=stored).encoded == made(plain, format=stored).encoded
    )


@pytest.mark.parametrize("stored", ["png", "jpeg"])
def test_the_comment_of_a_gif_is_not_stored(stored):
    image = Image.fromarray(crop(4, 40, 40)).quantize(16)
    told = encoded(image, "GIF", comment=b"by someone")
    plain = encoded(image, "GIF")
    assert b"by someone" in told
    assert (
        made(told, format=stored).encoded == made(plain, format=stored).encoded
    )


def test_filters():
    wide = encoded(crop(1, 20, 61))
    assert made(wide, min_size=20, max_aspect=3.05).source_size == (61, 20)
    with pytest.raises(Filtered, match="min_size"):
        made(wide, min_size=21)
    with pytest.raises(Filtered, match="max_aspect"):
        made(wide, max_aspect=3.0)


def test_without_a_crop_only_squares_pass():
    assert made(encoded(crop(1, 20, 20)), crop="none")
    with pytest.raises(BadImage, match="45 x 31 pixels are not square"):
        made(encoded(crop(1)), crop="none")
