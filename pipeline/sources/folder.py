"""A folder of image files, with its sub-folders."""

import errno
import os
import stat
from pathlib import PurePosixPath

from apache_beam.io.filesystems import FileSystems

from pipeline import files
from pipeline.sources.base import Item
from pipeline.sources.base import Listed
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from pipeline.sources.base import as_key
from pipeline.sources.base import too_large
from transgan_tf.images import SUFFIXES

# What is wrong with the one file; other errors are of the machine, and a job
# that went on would leave sound images out.
_OF_THE_FILE = (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ELOOP)


class Folder(Source):
    """Files are told by their suffix; hidden files and folders are ignored.

    On a local disk links to folders are not followed.

    Args:
        path: of the folder, local or of any file system that Beam knows.
    """

    kind = "folder"
    folders_are_classes = True

    def __init__(self, path: str):
        self.path = path

    def listing(self):
        for name, size, _ in self._found():
            # As bytes: names on disk need not be text.
            yield Listed(as_key(name), size, (os.fsencode(name), size))

    def modified(self):
        return max((modified for *_, modified in self._found()), default=0.0)

    def read(self, task):
        for name, size in task:
            name = os.fsdecode(name)
            data, error = b"", too_large(size)
            if error is None:
                try:
                    data = files.read(files.join(self.path, name))
                except OSError as refused:
                    if refused.errno not in _OF_THE_FILE:
                        raise
                    error = f"the file cannot be read ({refused.strerror})"
            yield Item(as_key(name), data, error=error)

    def _found(self):
        """Yields `(name, size, time of change)` of each image file."""
        found = self._remote() if files.is_remote(self.path) else self._local()
        for name, size, modified in found:
            hidden = any(p.startswith(".") for p in PurePosixPath(name).parts)
            if name.lower().endswith(SUFFIXES) and not hidden:
                yield name, size, modified

    def _remote(self):
        root = self.path.rstrip("/") + "/"
        (result,) = FileSystems.match([f"{root}**"])
        for found in result.metadata_list:
            name = found.path.removeprefix(root)
            yield name, found.size_in_bytes, found.last_updated_in_seconds

    def _local(self):
        walk = os.walk(self.path, onerror=_refuse)
        for parent, children, names in walk:
            children[:] = [c for c in children if not c.startswith(".")]
            for name in names:
                path = os.path.join(parent, name)
                name = os.path.relpath(path, self.path).replace(os.sep, "/")
                try:
                    status = os.stat(path)
                except OSError:
                    # A link to nothing: reading it will say so.
                    yield name, 0, 0.0
                    continue
                if stat.S_ISREG(status.st_mode):
                    # Not the date that copies and cameras may set at will.
                    yield name, status.st_size, status.st_ctime


def _refuse(error):
    raise SourceError(
        f"the folder {error.filename} cannot be listed ({error.strerror}): "
        "check the path and its permissions"
    ) from None
