"""Arrays that are computed once and kept below the user's cache folder."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

# An array of the other arrays' names.
_NAMES = "names"

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Returns `$XDG_CACHE_HOME/transgan_tf`, by default below `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "transgan_tf")


def cached_arrays(
    kind: str, key: dict, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Returns arrays by name, from the cache or made and put there.

    Two processes that make the same arrays at once both write whole files. A
    damaged file is made again, and a folder that cannot be written only costs
    the next process its time.

    Args:
        kind: what the arrays are, the beginning of the file's name.
        key: everything that the arrays follow from; plain data.
        make: makes them.
    """
    path = cache_folder() / f"{kind}-{fingerprint(key)}.npz"
    try:
        # NumPy would leave a damaged file open.
        with open(path, "rb") as file, np.load(file) as archive:
            # An array whose name is damaged would go unnoticed.
            return {name: archive[name] for name in archive[_NAMES].tolist()}
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception as error:
        # A damaged archive makes NumPy and zipfile raise nearly anything.
        _log.warning("%s is damaged (%s) and is made again", path, error)
    arrays = make()
    try:
        write_arrays(path, arrays | {_NAMES: np.array(sorted(arrays))})
    except OSError as error:
        _log.warning("%s cannot be kept (%s)", path, error.strerror)
    return arrays


def write_arrays(path, arrays: dict[str, np.ndarray]) -> None:
    """Writes an `.npz` file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def fingerprint(value) -> str:
    """Returns 16 hexadecimal digits of plain data's SHA-256."""
    text = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:16]
