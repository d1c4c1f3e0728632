"""LSUN's LMDB environments: keys to WebP or JPEG files."""

import contextlib
import os
import threading

import lmdb

from pipeline import files
from pipeline.sources.base import TASK_SIZE
from pipeline.sources.base import Item
from pipeline.sources.base import Listed
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from pipeline.sources.base import too_large

# One environment may be open once in a process, whatever its threads do, and
# must not cross a fork.
_open, _lock = {}, threading.Lock()


class Lmdb(Source):
    """An environment on a local disk, which LMDB maps into memory.

    Args:
        path: of the folder that holds `data.mdb`.
    """

    kind = "lmdb"

    def __init__(self, path: str):
        if files.is_remote(path):
            raise SourceError(
                f"{path} is remote, where LMDB cannot work: copy it to a disk"
            )
        self.path = path

    def listing(self):
        for key in self._keys():
            yield Listed(_text(key), 0, key)

    def modified(self):
        return files.modified(os.path.join(self.path, "data.mdb"))

    def list_tasks(self):
        """Yields ranges of keys: `[first key, number]`."""
        first, count = None, 0
        for key in self._keys():
            if count == TASK_SIZE:
                yield [first, count]
                count = 0
            if not count:
                first = key
            count += 1
        if count:
            yield [first, count]

    def read(self, task):
        first, count = task
        with self._transaction() as transaction:
            cursor = transaction.cursor()
            cursor.set_range(first)
            for key, value in cursor.iternext():
                name, error = _text(bytes(key)), too_large(len(value))
                # Only now is the value read and copied.
                data = b"" if error else bytes(value)
                yield Item(name, data, error=error)
                count -= 1
                if not count:
                    return

    def _keys(self):
        with self._transaction() as transaction:
            for key in transaction.cursor().iternext(values=False):
                yield bytes(key)

    @contextlib.contextmanager
    def _transaction(self):
        try:
            with _environment(self.path).begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise SourceError(
                f"{self.path} cannot be read as an LMDB environment ({error}): "
                "name the folder that holds data.mdb"
            ) from None


def _environment(path):
    with _lock:
        place = (os.getpid(), os.path.realpath(path))
        if place not in _open:
            _open[place] = _opened(path)
        return _open[place]


def _opened(path):
    """Opens an environment, unless its file breaks off.

    Reading memory that is mapped beyond a file's end kills the process.
    """
    environment = lmdb.open(path, readonly=True, lock=False, readahead=False)
    pages = environment.info()["last_pgno"] + 1
    whole = pages * environment.stat()["psize"]
    size = os.path.getsize(os.path.join(path, "data.mdb"))
    if size < whole:
        environment.close()
        raise SourceError(
            f"{path} is not complete, since data.mdb has {size:,} bytes where "
            f"its pages take {whole:,}: fetch it again"
        )
    return environment


def _text(key):
    """Returns a key as text: LSUN's are ASCII, others become hexadecimal."""
    if key.isascii() and key.decode("ascii").isprintable():
        return key.decode("ascii")
    return key.hex()
