"""An object store in memory, `mem://`, as Beam sees gs:// or s3://."""

import io
import time

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystem import FileSystem

# Path to content and time of change; no folders, as in all such stores.
OBJECTS = {}


class _Writer(io.BytesIO):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            OBJECTS[self.path] = (self.getvalue(), time.time())
        super().close()


class MemoryFileSystem(FileSystem):
    """Beam finds it by its scheme, among all subclasses."""

    @classmethod
    def scheme(cls):
        return "mem"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        raise AssertionError("object stores have no folders to make")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path, (content, changed) in sorted(OBJECTS.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content), changed)

    def create(self, path, mime_type=None, compression_type=None):
        return _Writer(path)

    def open(self, path, mime_type=None, compression_type=None):
        if path not in OBJECTS:
            raise BeamIOError(f"there is no {path}")
        return io.BytesIO(OBJECTS[path][0])

    def copy(self, sources, destinations):
        for source, destination in zip(sources, destinations, strict=True):
            OBJECTS[destination] = OBJECTS[source]

    def rename(self, sources, destinations):
        self.copy(sources, destinations)
        for source in sources:
            del OBJECTS[source]

    def exists(self, path):
        return path in OBJECTS

    def size(self, path):
        return len(OBJECTS[path][0])

    def last_updated(self, path):
        return OBJECTS[path][1]

    def checksum(self, path):
        raise NotImplementedError

    def metadata(self, path):
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths):
        for path in paths:
            names = [path]
            if path.endswith("/"):
                names = [name for name in OBJECTS if name.startswith(path)]
            if not set(names) <= set(OBJECTS):
                raise BeamIOError(f"there is no {path}")
            for name in names:
                del OBJECTS[name]
