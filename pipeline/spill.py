"""Finished images on their way to a shard: on disk, not in memory.

A worker writes the images that it has made to files of its own and passes on
where they lie. So grouping and sorting move short entries alone, and memory
does not grow with the number of images' pixels.
"""

import dataclasses
import functools
import pickle
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import files
from pipeline.layout import digest_of

SPILLED = "spill-"
# What a worker holds before it writes.
SPILL_BYTES = 16 * 2**20
# Of a reader; every thread has one.
OPEN_FILES = 16
# Of a content's sha256, enough to tell any two apart.
CONTENT_BYTES = 16
# Of chance in a file's name, which every entry carries: that two of a million
# files get the same name happens once in 37 million jobs.
_TOKEN_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """Where a finished image lies, and what decides where it goes.

    Attributes:
        key: the source's name of the image.
        content: beginning of the sha256 of the source's bytes.
        label: the source's class, or None.
        spill, offset, length: the place of its `StoredImage`'s pickle.
    """

    key: str
    content: bytes
    label: int | None
    spill: str
    offset: int
    length: int

    @functools.cached_property
    def digest(self) -> bytes:
        return digest_of(self.key)

    def pack(self) -> bytes:
        """Returns it as it travels: of a million images every byte counts."""
        values = (getattr(self, f.name) for f in dataclasses.fields(self))
        return pickle.dumps(tuple(values))

    @classmethod
    def unpack(cls, packed: bytes) -> "Entry":
        return cls(*pickle.loads(packed))


class SpillWriter:
    """Collects finished images and writes them in files of some megabytes.

    Args:
        folder: where to write.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._clear()

    def _clear(self):
        self.waiting, self.size, self.seen, self.bad = [], 0, 0, 0

    def note(self, bad: bool) -> None:
        """Counts an image, finished or not, for the progress."""
        self.seen += 1
        self.bad += bad

    def add(self, key: str, content: bytes, label, stored: bytes) -> None:
        self.waiting.append((key, content, label, stored))
        self.size += len(stored)

    def is_full(self) -> bool:
        return self.size >= SPILL_BYTES

    def flush(self) -> Iterator[Entry]:
        """Writes what waits; yields where each image lies."""
        if not self.seen:
            return
        # Its name tells the progress: a bundle that is tried again leaves
        # a file that nobody refers to.
        token = secrets.token_hex(_TOKEN_BYTES)
        name = f"{SPILLED}{token}-{self.seen}-{self.bad}"
        entries, offset = [], 0
        with files.create(files.join(self.folder, name)) as file:
            for key, content, label, stored in self.waiting:
                file.write(stored)
                place = (name, offset, len(stored))
                entries.append(Entry(key, content, label, *place))
                offset += len(stored)
        self._clear()
        yield from entries


class SpillReader:
    """Reads spilled images, with the last used files kept open.

    Args:
        folder: where they were written.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self.open = {}

    def read(self, entry: Entry) -> bytes:
        file = self.open.pop(entry.spill, None)
        if file is None:
            if len(self.open) >= OPEN_FILES:
                self.open.pop(next(iter(self.open))).close()
            file = files.open_file(files.join(self.folder, entry.spill))
        self.open[entry.spill] = file
        file.seek(entry.offset)
        return file.read(entry.length)

    def close(self) -> None:
        for file in self.open.values():
            file.close()
        self.open = {}


def spilled_images(folder: str) -> tuple[int, int]:
    """Returns how many images have been seen so far, and how many are bad."""
    names = files.names_in(folder)
    counts = [n.split("-")[2:] for n in names if n.startswith(SPILLED)]
    return sum(int(c[0]) for c in counts), sum(int(c[1]) for c in counts)
