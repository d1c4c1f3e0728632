"""From a source's bytes to a stored image: pure functions, no Beam."""

import io
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from transgan_tf.images import FORMATS
from transgan_tf.images import convert
from transgan_tf.images import crop_square
from transgan_tf.images import resize
from transgan_tf.manifest import DatasetSettings

# Larger than any photograph; what claims to be larger is not read at all.
LARGEST_FILE = 512 * 2**20
_JPEG_END = b"\xff\xd9"
# How a PNG file of the only depth begins that is stored: its signature and the
# name and length of its header come before the depth, its packing after it.
_PNG_START = rb"\x89PNG\r\n\x1a\n\0\0\0\rIHDR.{8}\x08.\0\0"
_PNG_CHUNKS = rb"IHDR( [a-z][A-Za-z]{3})*( IDAT)+( [a-z][A-Za-z]{3})* IEND"
_PNG_SIGNATURE_LENGTH = 8
_ORIENTATION, _UPRIGHT = 0x0112, 1


class BadImage(ValueError):
    """An image that cannot be used.

    Attributes:
        stage: `"read"`, `"decode"` or `"fit"`.
        reason: one sentence.
    """

    def __init__(self, stage: str, reason: str):
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason


class Filtered(Exception):
    """A sound image that the settings leave out.

    Attributes:
        reason: one phrase, the same for all such images.
    """

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class StoredImage:
    """An image as it is stored.

    Attributes:
        encoded: the file, PNG or JPEG.
        source_size: width and height before it was made to fit.
        histogram: how often each value occurs, int32 `(channels, 256)`.
    """

    encoded: bytes
    source_size: tuple[int, int]
    histogram: np.ndarray


def make_image(data: bytes, settings: DatasetSettings) -> StoredImage:
    """Decodes, filters, crops, resizes and encodes one image.

    Bytes that are already what the settings ask for are kept as they are.

    Raises:
        BadImage: it cannot be decoded or does not fit.
        Filtered: the settings leave it out.
    """
    with _open(data) as source:
        # Pillow only warns of up to twice its limit.
        if math.prod(source.size) > Image.MAX_IMAGE_PIXELS:
            raise _too_large()
        image = _decode(source, settings.channels)
        width, height = image.size
        _filter(width, height, settings)
        keeps = _is_stored_form(source, data, settings)
    if keeps:
        return StoredImage(data, (width, height), histogram(image))
    if settings.crop == "none" and width != height:
        raise BadImage("fit", f"{width} x {height} pixels are not square")
    image = resize(crop_square(image), settings.image_size)
    encoded = _encode(image, settings)
    if settings.format == "jpeg":
        # Statistics are of what is stored.
        with Image.open(io.BytesIO(encoded)) as stored:
            image = stored.copy()
    return StoredImage(encoded, (width, height), histogram(image))


def histogram(image) -> np.ndarray:
    """Counts each value of each channel of a grey or RGB image."""
    return np.array(image.histogram(), np.int32).reshape(-1, 256)


def _open(data):
    if not data:
        raise BadImage("read", "the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        reason = "it is not a PNG, JPEG, WebP, BMP or GIF file"
        raise BadImage("decode", reason) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except Exception as error:
        raise _undecodable(error) from None


def _undecodable(error):
    if isinstance(error, MemoryError):
        # The machine's fault, not the image's.
        raise error
    # A broken file makes Pillow's decoders raise nearly anything.
    text = str(error) or type(error).__name__
    return BadImage("decode", f"it cannot be decoded ({text})")


def _too_large():
    limit = Image.MAX_IMAGE_PIXELS
    return BadImage("decode", f"it claims to have more than {limit:,} pixels")


def _decode(source, channels):
    try:
        source.load()
        return convert(source, channels)
    except Exception as error:
        raise _undecodable(error) from None


def _filter(width, height, settings):
    short, long = sorted((width, height))
    if short < settings.min_size:
        raise Filtered("smaller than min_size")
    if settings.max_aspect is not None and long > settings.max_aspect * short:
        raise Filtered("longer than max_aspect")


def _is_stored_form(source, data, settings):
    """Tells whether a decoded file is what the settings would make of it."""
    side = settings.image_size
    mode = {1: "L", 3: "RGB"}[settings.channels]
    return (
        source.format == settings.format.upper()
        and source.size == (side, side)
        and source.mode == mode
        and not source.has_transparency_data
        and getattr(source, "n_frames", 1) == 1
        and source.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT
        and is_whole(data, settings.format)
    )


def is_whole(data: bytes, format: str) -> bool:
    """Tells of a file that Pillow reads whether TensorFlow does, too.

    Pillow does without a file's end, without the checksums of a PNG file's
    chunks and without their order; TensorFlow does not. May say no to odd
    files that TensorFlow reads.

    Args:
        data: the file.
        format: `"png"` or `"jpeg"`.
    """
    if format == "jpeg":
        return data.endswith(_JPEG_END)
    if not re.match(_PNG_START, data, re.DOTALL):
        return False
    names = b" ".join(_png_chunks(data))
    return re.fullmatch(_PNG_CHUNKS, names) is not None


def _png_chunks(data) -> Iterator[bytes]:
    """Yields the names of a PNG file's chunks; an empty one of a broken one."""
    place = _PNG_SIGNATURE_LENGTH
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        content = data[place + 4 : place + 8 + length]
        checksum = data[place + 8 + length : place + 12 + length]
        sound = checksum == zlib.crc32(content).to_bytes(4, "big")
        yield content[:4] if sound else b""
        place += 12 + length


def _encode(image, settings):
    # Pillow would write the source's colour profile and comment, too.
    image.info = {}
    file = io.BytesIO()
    options = {}
    if settings.format == "jpeg":
        options = {"quality": settings.quality}
    image.save(file, settings.format.upper(), **options)
    return file.getvalue()
