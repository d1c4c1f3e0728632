"""Whether a dataset is what its manifest says, down to each record."""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from pipeline import files
from pipeline.layout import SHARD_NAME
from pipeline.layout import digest_of
from pipeline.layout import shard_names
from pipeline.layout import shard_of
from pipeline.statistics import Statistics
from pipeline.tfrecord import BrokenRecord
from pipeline.tfrecord import read_records
from pipeline.transform import histogram
from pipeline.transform import is_whole
from transgan_tf.checked import UserError
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import SPLITS
from transgan_tf.manifest import STATISTICS
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import Manifest
from transgan_tf.manifest import ManifestError
from transgan_tf.manifest import Shard
from transgan_tf.manifest import parse_manifest
from transgan_tf.records import decode


class DatasetError(UserError):
    """A dataset that is not sound; names the first offending file or record."""


def check_dataset(folder: str, fast: bool = False) -> Iterator[str]:
    """Yields the lines of the report.

    Args:
        folder: of the dataset.
        fast: whether to leave out what needs the records' content.

    Raises:
        ManifestError, DatasetError: the dataset is not sound.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    yield f"ok  {MANIFEST}: {len(manifest.shards)} files"
    total = Statistics()

    def check(shard):
        return check_shard(folder, manifest, shard, fast)

    # Hashing, checksums and decoding all run beside Python.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(check, manifest.shards)
        for shard, statistics in zip(manifest.shards, results, strict=True):
            total.add(statistics)
            yield f"ok  {shard.name}: {shard.count:,} records"
    if not fast:
        check_statistics(folder, manifest, total)
        yield f"ok  {STATISTICS}: as recomputed from the images"
    counts = (f"{manifest.count(split):,} {split}" for split in SPLITS)
    yield f"{folder} is sound: {', '.join(counts)}"


def read_manifest(folder: str) -> Manifest:
    path = files.join(folder, MANIFEST)
    if not files.exists(path):
        raise ManifestError(
            f"{folder} is not a dataset, since it has no {MANIFEST}: make it "
            "by `python -m pipeline.preprocess`"
        )
    return parse_manifest(files.read(path).decode("utf-8", "replace"), path)


def check_files(folder: str, manifest: Manifest) -> None:
    """Raises `DatasetError` unless exactly the manifest's shards are there."""
    named = [shard.name for shard in manifest.shards]
    if named != shard_names(manifest.settings):
        raise DatasetError(f"{MANIFEST} does not name all shards that it must")
    there = files.names_in(folder)
    for name in there:
        if re.fullmatch(SHARD_NAME, name) and name not in named:
            raise DatasetError(f"{name} is not in {MANIFEST}")
    for name in (*named, STATISTICS):
        if name not in there:
            raise DatasetError(f"{name} is missing")


def check_shard(
    folder: str, manifest: Manifest, shard: Shard, fast: bool
) -> Statistics:
    """Reads a shard once; returns its statistics, empty if `fast`.

    Raises:
        DatasetError: names the first record that is not sound, or the file.
    """
    statistics, count = Statistics(), 0
    keys = KeyCheck(manifest.settings, shard.name)
    with files.open_file(files.join(folder, shard.name)) as file:
        hashed = HashedFile(file)
        try:
            for record in read_records(hashed):
                if not fast:
                    found = check_record(record, manifest)
                    keys.check(found["filename"])
                    statistics.add_image(found["histogram"], found["label"])
                count += 1
        except BrokenRecord as error:
            raise DatasetError(f"{shard.name}, {error}") from None
        except ValueError as error:
            where = f"{shard.name}, record {count}"
            raise DatasetError(f"{where}: {str(error).rstrip('.')}") from None
    found = Shard(shard.name, count, hashed.size, hashed.sha256.hexdigest())
    if found != shard:
        raise DatasetError(
            f"{shard.name} has {_described(found)}, and the manifest says "
            f"{_described(shard)}"
        )
    return statistics


def _described(shard):
    return (
        f"{shard.count:,} records, {shard.bytes:,} bytes, SHA-256 "
        f"{shard.sha256[:12]}..."
    )


class HashedFile:
    """Hashes what is read of a file."""

    def __init__(self, file):
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int) -> bytes:
        content = self.file.read(size)
        self.size += len(content)
        self.sha256.update(content)
        return content


class KeyCheck:
    """Checks that a shard's keys are its own, in order, each there once."""

    def __init__(self, settings: DatasetSettings, name: str):
        self.settings = settings
        self.name = name
        self.last = b""

    def check(self, key: str) -> None:
        digest = digest_of(key)
        name = shard_of(digest, self.settings)
        if name != self.name:
            raise ValueError(f"{key!r} belongs into {name}")
        if digest == self.last:
            raise ValueError(f"{key!r} is there twice")
        if digest < self.last:
            raise ValueError(f"{key!r} is out of order")
        self.last = digest


def check_record(serialized: bytes, manifest: Manifest) -> dict:
    """Parses a record and decodes its image.

    Returns:
        Its values, and the image's `"histogram"`.

    Raises:
        ValueError: it is not what the manifest promises.
    """
    settings = manifest.settings
    found = decode(serialized)
    if found["format"] != settings.format:
        raise ValueError(f"it is {found['format']}, not {settings.format}")
    label = found["label"]
    if label is not None and label >= len(manifest.classes):
        raise ValueError(f"its label {label} has no class")
    try:
        with Image.open(io.BytesIO(found["encoded"])) as image:
            image.load()
    except Exception as error:
        # A broken file makes Pillow's decoders raise nearly anything.
        raise ValueError(f"its image cannot be decoded ({error})") from None
    if not is_whole(found["encoded"], settings.format):
        raise ValueError(
            "its image is damaged or odd, so that TensorFlow may refuse it"
        )
    side = settings.image_size
    sizes = {image.size, (found["width"], found["height"])}
    if sizes != {(side, side)}:
        raise ValueError(f"its size is {image.size}, not {(side, side)}")
    mode = {1: "L", 3: "RGB"}[settings.channels]
    if image.mode != mode:
        raise ValueError(f"its mode is {image.mode}, not {mode}")
    return found | {"histogram": histogram(image)}


def check_statistics(
    folder: str, manifest: Manifest, total: Statistics
) -> None:
    """Raises `DatasetError` unless `statistics.json` is of these images."""
    try:
        content = json.loads(files.read(files.join(folder, STATISTICS)))
    except ValueError as error:
        raise DatasetError(f"{STATISTICS} cannot be read ({error})") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{STATISTICS} holds no object")
    expected = {
        "images": {split: manifest.count(split) for split in SPLITS},
        "channels": total.channels(),
        "labels": total.label_counts(manifest.classes),
    }
    for name, value in expected.items():
        if content.get(name) != value:
            raise DatasetError(
                f"{STATISTICS} says {name} = {content.get(name)}, and the "
                f"images say {value}"
            )
