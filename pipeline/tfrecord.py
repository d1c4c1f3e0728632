"""The TFRecord format, without TensorFlow.

A record is framed by its length (uint64), the length's checksum, itself and
its own checksum; numbers are little-endian, checksums masked CRC-32C.
"""

import struct
from collections.abc import Iterator

import google_crc32c

_LENGTH, _CHECKSUM = struct.Struct("<Q"), struct.Struct("<I")
_MASK = 0xA282EAD8
# What a broken length could claim; a record is held in memory.
LARGEST_RECORD = 2**30


class BrokenRecord(ValueError):
    """A TFRecord file that breaks off or whose checksums are wrong.

    Attributes:
        index: place of the record in the file, from 0.
    """

    def __init__(self, index: int, reason: str):
        super().__init__(f"record {index}: {reason}")
        self.index = index


def frame(record: bytes) -> bytes:
    """Returns a record as it stands in a file."""
    length = _LENGTH.pack(len(record))
    return b"".join((length, _checksum(length), record, _checksum(record)))


def read_records(file) -> Iterator[bytes]:
    """Yields the records of an open file, checking every checksum.

    Raises:
        BrokenRecord: at the first that is broken.
    """
    index = 0
    while length := file.read(_LENGTH.size):
        yield _read_record(file, length, index)
        index += 1


def _read_record(file, length, index):
    checksum = file.read(_CHECKSUM.size)
    if len(length + checksum) < _LENGTH.size + _CHECKSUM.size:
        raise BrokenRecord(index, "the file breaks off")
    if checksum != _checksum(length):
        raise BrokenRecord(index, "its length has a wrong checksum")
    (size,) = _LENGTH.unpack(length)
    if size > LARGEST_RECORD:
        raise BrokenRecord(index, f"it claims to have {size:,} bytes")
    record = file.read(size)
    checksum = file.read(_CHECKSUM.size)
    if len(record) < size or len(checksum) < _CHECKSUM.size:
        raise BrokenRecord(index, "the file breaks off")
    if checksum != _checksum(record):
        raise BrokenRecord(index, "its checksum is wrong")
    return record


def _checksum(content):
    """Returns the masked CRC-32C, rotated and shifted as TensorFlow does."""
    crc = google_crc32c.value(content)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return _CHECKSUM.pack((rotated + _MASK) & 0xFFFFFFFF)
