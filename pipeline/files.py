"""Files on any file system that Beam knows: local, gs://, s3://, hdfs://."""

import os
import uuid

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

_PLAIN = CompressionTypes.UNCOMPRESSED


def is_remote(path: str) -> bool:
    return FileSystems.get_scheme(path) is not None


def join(folder: str, *names: str) -> str:
    return FileSystems.join(folder, *names)


def exists(path: str) -> bool:
    return FileSystems.exists(path)


def open_file(path: str):
    """Opens a file for reading bytes, seekable, never decompressed."""
    if not is_remote(path):
        return open(path, "rb")
    return FileSystems.open(path, compression_type=_PLAIN)


def create(path: str):
    """Opens a file for writing bytes; the folder must exist."""
    return FileSystems.create(path, compression_type=_PLAIN)


def make_folder(path: str) -> None:
    """Makes a folder unless it is there; object stores have none to make."""
    if not is_remote(path):
        os.makedirs(path, exist_ok=True)


def replace(temporary: str, path: str) -> None:
    """Renames a file, over one of that name."""
    if not is_remote(path):
        os.replace(temporary, path)
        return
    if exists(path):
        FileSystems.delete([path])
    FileSystems.rename([temporary], [path])


def write(path: str, content: bytes) -> None:
    """Writes a file under another name and renames it."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with create(temporary) as file:
        file.write(content)
    replace(temporary, path)


def read(path: str) -> bytes:
    with open_file(path) as file:
        return file.read()


def names_in(folder: str) -> list[str]:
    """Returns the names in a folder; none if it is missing.

    On a remote file system only files have names.
    """
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    (result,) = FileSystems.match([join(folder, "*")])
    paths = [found.path for found in result.metadata_list]
    return sorted(path.rpartition("/")[2] for path in paths)


def delete(path: str) -> None:
    """Deletes a file, or a folder with all that is in it, if there is one."""
    if exists(path):
        FileSystems.delete([path])


def modified(path: str) -> float:
    """Returns when a file changed last, in seconds since 1970."""
    if is_remote(path):
        return FileSystems.last_updated(path)
    return os.path.getmtime(path)
