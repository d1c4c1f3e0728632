"""Files on any file system that Beam knows: local, gs://, s3://, hdfs://."""

import contextlib
import os
import pathlib
import shutil
import uuid

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transgan_tf.checked import UserError

_PLAIN = CompressionTypes.UNCOMPRESSED
# To delete a folder; every one deletes what the one before has missed.
_ATTEMPTS = 99


class FileSystemError(UserError):
    """A file system that this installation cannot reach."""


def is_remote(path: str) -> bool:
    """Tells whether a path is of a file system other than the local disks.

    Raises:
        FileSystemError: what is needed for it is not installed.
    """
    if FileSystems.get_scheme(path) is None:
        return False
    try:
        FileSystems.get_filesystem(path)
    except ValueError:
        raise FileSystemError(
            f"{path} cannot be reached, since Beam's part for it is not "
            "installed: pip install 'apache-beam[gcp]' for gs://, [aws] for "
            "s3://, [azure] for azfs://, or check the path"
        ) from None
    return True


def absolute(path: str) -> str:
    """Returns a local path from the root on, a remote one as it is."""
    return path if is_remote(path) else os.path.abspath(path)


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
    if not is_remote(path):
        # Beam would make the folder anew, also for the workers of a killed job
        # that live on for some seconds.
        return open(path, "wb")
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


def size(path: str) -> int:
    """Returns the number of a file's bytes."""
    if is_remote(path):
        return FileSystems.match([path])[0].metadata_list[0].size_in_bytes
    return os.path.getsize(path)


def names_in(folder: str) -> list[str]:
    """Returns the names in a folder; none if it is missing."""
    if not is_remote(folder):
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    root = f"{folder.rstrip('/')}/"
    (result,) = FileSystems.match([f"{root}**"])
    paths = [found.path.removeprefix(root) for found in result.metadata_list]
    return sorted({path.partition("/")[0] for path in paths})


def delete(path: str) -> None:
    """Deletes a file, or a folder with all that is in it, if there is one."""
    if not is_remote(path):
        if os.path.isdir(path):
            _delete_folder(path)
        else:
            pathlib.Path(path).unlink(missing_ok=True)
        return
    # Object stores know a folder by its last slash alone.
    for name in (path, f"{path.rstrip('/')}/"):
        with contextlib.suppress(BeamIOError):
            FileSystems.delete([name])


def _delete_folder(path):
    """Deletes a local folder, into which a killed job's worker may write."""
    for _ in range(_ATTEMPTS):
        # What was written meanwhile keeps the folder from going.
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
            return
    shutil.rmtree(path)


def modified(path: str) -> float:
    """Returns when a file changed last, in seconds since 1970."""
    if is_remote(path):
        return FileSystems.last_updated(path)
    return os.path.getmtime(path)


def set_modified(path: str, seconds: float) -> None:
    """Dates a local file; object stores date by themselves."""
    if not is_remote(path):
        os.utime(path, (seconds, seconds))
