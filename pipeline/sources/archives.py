"""Zip and tar archives, read in place and never extracted."""

import gzip
import tarfile
import zipfile
import zlib

from pipeline import files
from pipeline.sources.base import Item
from pipeline.sources.base import Listed
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from pipeline.sources.base import as_key
from pipeline.sources.base import is_unsafe
from pipeline.transform import LARGEST_FILE
from transgan_tf.images import SUFFIXES

# A compressed tar can only be read from its beginning. So that its images are
# shared out all the same, each of so many tasks reads it all and takes every
# so many-th image: decompressing is cheap beside decoding and encoding.
COMPRESSED_TAR_TASKS = 8
_BLOCK = 2**20


# What zipfile raises of a damaged directory: names that are no text, versions
# that do not exist.
_DAMAGED_ZIP = (
    OSError,
    UnicodeDecodeError,
    NotImplementedError,
    zipfile.BadZipFile,
)
_DAMAGED_TAR = (OSError, EOFError, tarfile.TarError, zlib.error)


class Archive(Source):
    """What both kinds have in common.

    Args:
        path: of the archive, local or of any file system that Beam knows.
    """

    folders_are_classes = True

    def __init__(self, path: str):
        self.path = path

    def modified(self):
        return files.modified(self.path)

    def damaged(self, error) -> SourceError:
        if isinstance(error, PermissionError):
            return SourceError(
                f"{self.path} cannot be read ({error.strerror}): check its "
                "permissions"
            )
        return SourceError(
            f"{self.path} cannot be read as a {self.kind} archive ({error}): "
            "it is damaged or not complete; fetch it again"
        )


def _is_image(name):
    """Tells by its name; unsafe names count, to be refused by name."""
    if not name.lower().endswith(SUFFIXES):
        return False
    parts = [part for part in name.split("/") if part != "."]
    hidden = any(part.startswith(".") for part in parts)
    # What a Mac adds beside each file.
    added = parts[0] == "__MACOSX"
    return is_unsafe(name) or not (hidden or added)


def _key(name):
    return as_key(name.removeprefix("./"))


def _refusal(name, size, is_link=False):
    """Returns why a member is not to be read, or None."""
    if is_unsafe(name):
        return "its name points out of the archive"
    if size > LARGEST_FILE:
        return f"it claims to have {size:,} bytes"
    if is_link:
        return "it is a link to another member"
    return None


class Zip(Archive):
    kind = "zip"
    # Opened by the first task of a worker: to read a large archive's directory
    # takes longer than a task.
    archive = None

    def listing(self):
        try:
            with files.open_file(self.path) as file:
                with zipfile.ZipFile(file) as archive:
                    members = archive.infolist()
        except _DAMAGED_ZIP as error:
            raise self.damaged(error) from None
        for index, member in enumerate(members):
            if _is_image(member.filename):
                size = (member.file_size, member.CRC)
                yield Listed(_key(member.filename), size, index)

    def read(self, task):
        if self.archive is None:
            self.file = files.open_file(self.path)
            self.archive = zipfile.ZipFile(self.file)
        members = self.archive.infolist()
        for index in task:
            yield _read_member(self.archive, members[index])

    def close(self):
        if self.archive is not None:
            self.archive.close()
            self.file.close()
            self.archive = None


def _read_member(archive, member):
    name = _key(member.filename)
    error = _refusal(name, member.file_size)
    if error is not None:
        return Item(name, error=error)
    try:
        return Item(name, archive.read(member))
    except MemoryError:
        raise
    except Exception as broken:
        # Of broken, encrypted or strangely packed members zipfile and its
        # decompressors raise nearly anything.
        return Item(name, error=f"it cannot be unpacked ({broken})")


class _StrictHeader(tarfile.TarInfo):
    """Where `tarfile` would take a damaged header for the archive's end."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


class Tar(Archive):
    """Uncompressed; its members are read where they lie."""

    kind = "tar"

    def listing(self):
        for member, _ in self.members():
            name = _key(member.name)
            error = _refusal(name, member.size, member.islnk())
            locator = (name, member.offset_data, member.size, error)
            yield Listed(name, member.size, locator)

    def read(self, task):
        with files.open_file(self.path) as file:
            for name, offset, size, error in task:
                if error is None:
                    file.seek(offset)
                    yield Item(name, file.read(size))
                else:
                    yield Item(name, error=error)

    def members(self):
        """Yields `(member, archive)` of the images, in the archive's order."""
        try:
            with (
                files.open_file(self.path) as file,
                self._opened(file) as archive,
            ):
                for member in archive:
                    is_file = member.isreg() or member.islnk()
                    if is_file and _is_image(member.name):
                        yield member, archive
                _require_end(archive.fileobj)
        except _DAMAGED_TAR as error:
            raise self.damaged(error) from None

    def _opened(self, file):
        return tarfile.open(fileobj=file, mode="r:", tarinfo=_StrictHeader)


def _require_end(file):
    """Raises `tarfile.ReadError` unless only zeros follow.

    A header that was zeroed looks like the end, but members follow it.
    """
    while block := file.read(_BLOCK):
        if block.count(0) < len(block):
            raise tarfile.ReadError("more follows the mark of its end")


class CompressedTar(Tar):
    """Compressed by gzip; see `COMPRESSED_TAR_TASKS`."""

    kind = "tar.gz"

    def listing(self):
        for member, _ in self.members():
            yield Listed(_key(member.name), member.size, None)

    def list_tasks(self):
        for first in range(COMPRESSED_TAR_TASKS):
            yield [first]

    def read(self, task):
        (first,) = task
        for place, (member, archive) in enumerate(self.members()):
            if place % COMPRESSED_TAR_TASKS == first:
                error = _refusal(member.name, member.size, member.islnk())
                data = b"" if error else archive.extractfile(member).read()
                yield Item(_key(member.name), data, error=error)

    def _opened(self, file):
        # Not by tarfile's own mode for gzip, which reads the first part alone
        # of a file that was compressed in parts, and checks no checksum.
        return tarfile.open(
            fileobj=gzip.GzipFile(fileobj=file),
            mode="r|",
            tarinfo=_StrictHeader,
        )
