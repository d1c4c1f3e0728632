"""Which image goes where: classes, splits and shards, as pure functions."""

import hashlib
from pathlib import PurePosixPath

from transgan_tf.manifest import SPLITS
from transgan_tf.manifest import DatasetSettings

# What `shard_name` makes.
SHARD_NAME = r"(train|validation)-\d{5}-of-\d{5}\.tfrecord"

_HASHES = 2**64


def digest_of(key: str) -> bytes:
    """Returns the sha256 of a key: shard, split and order follow it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def shard_of(digest: bytes, settings: DatasetSettings) -> str:
    """Returns the name of the shard of an image by the sha256 of its key.

    Different bytes of the digest decide split and shard; which split an image
    is in does not change as a dataset grows.
    """
    place = int.from_bytes(digest[:8], "big") / _HASHES
    split = "validation" if place < settings.validation_fraction else "train"
    shards = settings.shards_of(split)
    return shard_name(
        split, int.from_bytes(digest[8:16], "big") % shards, shards
    )


def shard_name(split: str, index: int, shards: int) -> str:
    return f"{split}-{index:05d}-of-{shards:05d}.tfrecord"


def shard_names(settings: DatasetSettings) -> list[str]:
    """Returns the names of all shards, sorted."""
    return [
        shard_name(split, index, settings.shards_of(split))
        for split in SPLITS
        for index in range(settings.shards_of(split))
    ]


def folder_of(key: str) -> str:
    """Returns the folder of a key, `"."` for none."""
    return str(PurePosixPath(key).parent)


def class_names(folders) -> tuple[str, ...]:
    """Returns the classes that the images' folders stand for, sorted.

    A class is the folder's name just below the folder that all images share:
    `{"photos/cat", "photos/dog/big"}` has the classes `cat` and `dog`. There
    are none if there is one folder, or if some images lie in the shared folder
    itself.
    """
    shared = _shared(folders)
    names = {_class_name(folder, shared) for folder in folders}
    return () if None in names else tuple(sorted(names))


def labels_by_folder(folders) -> dict[str, int]:
    """Returns the number of the class of each folder; empty without any."""
    classes = class_names(folders)
    if not classes:
        return {}
    shared = _shared(folders)
    numbers = {name: number for number, name in enumerate(classes)}
    return {f: numbers[_class_name(f, shared)] for f in folders}


def _shared(folders):
    """Returns how many leading parts all folders have in common."""
    paths = [PurePosixPath(folder).parts for folder in folders]
    shared = 0
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return shared


def _class_name(folder, shared):
    parts = PurePosixPath(folder).parts
    return parts[shared] if len(parts) > shared else None
