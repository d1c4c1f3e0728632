"""What images are read from: an array in memory, or TFRecords on disk.

Both are a number of images of one size that can be had in any order. Every
mistake of a user is a `DataError` with one sentence.
"""

import contextlib
import hashlib
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import tensorflow as tf

from transgan_tf.checked import UserError
from transgan_tf.cli import reason
from transgan_tf.configs import Config
from transgan_tf.manifest import load_manifest
from transgan_tf.records import parse

# A TFRecord's frame: the length and its checksum before, a checksum after.
_LENGTH = struct.Struct("<Q")
_BEFORE, _AFTER = 12, 4


class DataError(UserError):
    """Images that cannot be used; its text is one sentence."""


# What `tf.data` raises of a damaged image, a lost file or record.
_UNREADABLE = (tf.errors.InvalidArgumentError, tf.errors.UnknownError)
# The operation that gives a batch, among the names of those that failed; as
# `[[IteratorGetNext/_7]]` it only waited for the error of another (TensorFlow
# 2.21).
_FROM_DATA = re.compile(
    r"\[Op:IteratorGetNext\]|\[\[[^\[\]]*\bIteratorGetNext(_\d+)?(\}\})?\]\]"
)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Says in one sentence that an image could not be read in this block.

    Raises:
        DataError: instead of what `tf.data` raises.
    """
    try:
        yield
    except _UNREADABLE as error:
        # The model's errors are of these types, too.
        if not _FROM_DATA.search(error.message):
            raise
        raise DataError(
            f"an image cannot be read ({reason(error.message)}): check the "
            "dataset by `python -m pipeline.verify`; the same command then "
            "goes on from the newest checkpoint"
        ) from None


class Store(Protocol):
    """Images of one size.

    Attributes:
        count: number of images.
        image_size: side of the square images in pixels.
        channels: 1 for grey, 3 for RGB.
        fingerprint: text that tells these images from others.
    """

    count: int
    image_size: int
    channels: int
    fingerprint: str

    def take(self, places: tf.Tensor) -> tf.Tensor:
        """Reads images as they are stored, within `tf.data`.

        Args:
            places: int64 `(size,)`, below `count`.

        Returns:
            `size` rows, each for `decode`.
        """

    def decode(self, stored: tf.Tensor) -> tf.Tensor:
        """Returns one row of `take` as an image.

        uint8 `(image_size, image_size, channels)`.
        """


def check_size(store: Store, config: Config) -> None:
    """Raises `DataError` unless images fit a configuration's networks."""
    expected = (config.generator.image_size, config.generator.channels)
    if (store.image_size, store.channels) != expected:
        raise DataError(
            f"the images have {_described(store.image_size, store.channels)}, "
            f"and the networks take {_described(*expected)}: prepare images of "
            "that size, or choose another --preset"
        )


def _described(image_size, channels):
    colour = {1: "grey", 3: "colour"}[channels]
    return f"{image_size} x {image_size} px in {colour}"


# === In memory ===


def from_array(images) -> np.ndarray:
    """Checks a user's own images.

    Args:
        images: uint8 `(N, S, S, C)` in [0, 255], C 1 or 3.

    Returns:
        The same as a NumPy array.

    Raises:
        DataError: if they are not that.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8, got {images.dtype}")
    shape = images.shape
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (1, 3):
        raise DataError(
            "images must be square with 1 or 3 channels, of shape "
            f"(N, S, S, C), got {shape}"
        )
    if not images.size:
        raise DataError(f"there must be at least one image, got shape {shape}")
    return images


class ArrayStore:
    """Images in memory; see `Store`.

    The array is read where it lies: as a tensor that the dataset captures it
    would be held twice (measured).

    Args:
        images: what `from_array` takes.
    """

    def __init__(self, images):
        self.images = from_array(images)
        self.count, self.image_size, _, self.channels = self.images.shape
        checksum = zlib.crc32(np.ascontiguousarray(self.images))
        self.fingerprint = f"{self.count} images, CRC {checksum:08x}"

    def take(self, places):
        images = tf.numpy_function(
            self.images.__getitem__, (places,), tf.uint8, stateful=False
        )
        return tf.ensure_shape(images, (None, *self.images.shape[1:]))

    def decode(self, stored):
        return stored


def as_store(images) -> Store:
    """Returns a store as it is, and an array as an `ArrayStore`."""
    return images if hasattr(images, "decode") else ArrayStore(images)


# === TFRecords ===


class RecordStore:
    """Images in TFRecords that `pipeline.preprocess` made; see `Store`.

    Where each record lies is found once, by walking over the frames; so any
    image can be read at any time, and a stream may begin anywhere without
    reading what comes before.

    Args:
        folder: of the dataset, on a local disk.
        split: `"train"` or `"validation"`.
        worker, workers: this process's number among several that read, each of
            them files of its own.

    Raises:
        ManifestError: the folder is not a dataset.
        DataError: a file is not what the manifest says.
    """

    def __init__(self, folder, split="train", worker=0, workers=1):
        self.manifest = load_manifest(folder)
        settings = self.manifest.settings
        self.image_size, self.channels = settings.image_size, settings.channels
        shards = self.manifest.shards_of(split)[worker::workers]
        self.files = [Path(folder, shard.name) for shard in shards]
        places = [
            _find_records(file, shard, number)
            for number, (file, shard) in enumerate(
                zip(self.files, shards, strict=True)
            )
        ]
        # (N, 3): file, offset and length of each record.
        self.places = np.concatenate([np.zeros((0, 3), np.int64), *places])
        self.count = len(self.places)
        if not self.count:
            raise DataError(
                f"{folder} has no image for worker {worker} of {workers} in "
                f"the split {split}: prepare it with other --shards"
            )
        content = "".join(shard.sha256 for shard in shards).encode()
        checksum = hashlib.sha256(content).hexdigest()[:16]
        self.fingerprint = f"{self.count} images, SHA-256 {checksum}"

    def take(self, places):
        records = tf.numpy_function(
            self.records, (places,), tf.string, stateful=False
        )
        return tf.ensure_shape(records, (None,))

    def decode(self, stored):
        image = parse(stored, self.channels)["image"]
        shape = (self.image_size, self.image_size, self.channels)
        return tf.ensure_shape(image, shape)

    def records(self, places) -> np.ndarray:
        """Reads the serialized records at places below `count`."""
        return np.array([self._record(p) for p in places], object)

    def _record(self, place):
        number, offset, length = self.places[place]
        # Opening takes microseconds; thousands of files kept open do not go.
        with open(self.files[number], "rb", buffering=0) as file:
            record = os.pread(file.fileno(), length, offset)
        if len(record) < length:
            raise _damaged(self.files[number], "it breaks off")
        return record


def _find_records(path, shard, number):
    """Returns `(number, offset, length)` of each record of a file."""
    places, offset = [], 0
    try:
        with open(path, "rb") as file:
            while head := file.read(_LENGTH.size):
                (length,) = _LENGTH.unpack(head)
                places.append((number, offset + _BEFORE, length))
                offset += _BEFORE + length + _AFTER
                file.seek(offset)
    except (OSError, struct.error, OverflowError) as error:
        raise _damaged(path, error) from None
    if len(places) != shard.count or path.stat().st_size != shard.bytes:
        what = f"it must have {shard.count} records in {shard.bytes:,} bytes"
        raise _damaged(path, what)
    return np.array(places, np.int64).reshape(-1, 3)


def _damaged(path, what):
    return DataError(
        f"{path} is damaged or missing ({what}): check the dataset by `python "
        f"-m pipeline.verify --dataset_dir={path.parent}`"
    )
