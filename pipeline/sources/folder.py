"""A folder of image files, with its sub-folders."""

import os
from pathlib import PurePosixPath

from apache_beam.io.filesystems import FileSystems

from pipeline import files
from pipeline.sources.base import Item
from pipeline.sources.base import Listed
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from transgan_tf.images import SUFFIXES


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
        for key, size, _ in self._found():
            yield Listed(key, size, key)

    def modified(self):
        return max((modified for *_, modified in self._found()), default=0.0)

    def read(self, task):
        for key in task:
            try:
                yield Item(key, files.read(files.join(self.path, key)))
            except OSError as error:
                reason = error.strerror or str(error)
                yield Item(key, error=f"the file cannot be read ({reason})")

    def _found(self):
        """Yields `(key, size, time of change)` of each image file."""
        found = self._remote() if files.is_remote(self.path) else self._local()
        for key, size, modified in found:
            hidden = any(p.startswith(".") for p in PurePosixPath(key).parts)
            if key.lower().endswith(SUFFIXES) and not hidden:
                yield key, size, modified

    def _remote(self):
        root = self.path.rstrip("/") + "/"
        (result,) = FileSystems.match([f"{root}**"])
        for found in result.metadata_list:
            key = found.path.removeprefix(root)
            changed = found.last_updated_in_seconds
            yield key, found.size_in_bytes, changed

    def _local(self):
        for parent, _, names in os.walk(self.path, onerror=_refuse):
            for name in names:
                path = os.path.join(parent, name)
                key = os.path.relpath(path, self.path).replace(os.sep, "/")
                try:
                    status = os.stat(path)
                    yield key, status.st_size, status.st_mtime
                except OSError:
                    # A link to nothing: reading it will say so.
                    yield key, 0, 0.0


def _refuse(error):
    raise SourceError(
        f"the folder {error.filename} cannot be listed ({error.strerror}): "
        "check the path and its permissions"
    ) from None
