"""One process at a time for each cache key."""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

_PAUSE_SECONDS = 0.1


@contextlib.contextmanager
def locked(
    path: Path, holder: dict, waiting: Callable[[dict | None], None]
) -> Iterator[int]:
    """Holds a lock, which the system takes from whoever dies.

    A child that inherits the descriptor holds it, too: the lock is free when
    both are gone.

    Args:
        path: of the lock's file, which stays.
        holder: who holds it now, for those who wait; plain data.
        waiting: called again and again while another holds it, with who; it
            ends the waiting by raising.

    Yields:
        The descriptor.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        while not _try(file):
            waiting(_holder(path))
            time.sleep(_PAUSE_SECONDS)
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        yield file.fileno()


def _try(file):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path):
    """Returns who holds the lock, or None in the moment of its taking."""
    try:
        return json.loads(path.read_text())
    except ValueError:
        return None
