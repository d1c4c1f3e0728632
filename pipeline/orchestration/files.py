"""What is in an artifact's folder, told by hashes or, cheaply, by sizes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

_CHUNK = 2**20


def record(folder) -> dict[str, list]:
    """Brings a folder's files down to the disk and hashes them.

    Returns:
        `[bytes, SHA-256]` by path in the folder. Of a link, which is not
        followed, those of its target's name.
    """
    for _, path in _walk(folder):
        if not path.is_symlink():
            sync(path)
    for parent, _, _ in os.walk(folder, topdown=False):
        sync(parent)
    sync(Path(folder).parent)
    return hashes(folder)


def hashes(folder) -> dict[str, list]:
    """Returns the same, without writing."""
    return {name: _hashed(path) for name, path in _walk(folder)}


def _hashed(path):
    if path.is_symlink():
        target = os.readlink(path).encode()
        return [len(target), hashlib.sha256(target).hexdigest()]
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return [size, digest.hexdigest()]


def fingerprint(files: dict[str, list]) -> str:
    """Returns the SHA-256 over names and contents of what `record` found."""
    return digest({name: content for name, (_, content) in files.items()})


def digest(value) -> str:
    """Returns the SHA-256 of plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def damage(
    folder, files: dict[str, list], growing: Sequence[str] = ()
) -> str | None:
    """Returns what of `record`'s files is not there any more, or None.

    Looks at names and sizes only. Files that `growing` patterns match may have
    become longer, and new ones of them may be there, and hidden ones.
    """

    def grows(name):
        return any(fnmatchcase(name, pattern) for pattern in growing)

    if not Path(folder).is_dir():
        return f"{Path(folder).name}/ is missing"
    found = {name: path.lstat().st_size for name, path in _walk(folder)}
    for name, (size, _) in files.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] < size or (found[name] > size and not grows(name)):
            return f"{name} has {found[name]:,} bytes instead of {size:,}"
    new = sorted(found.keys() - files.keys())
    strange = [name for name in new if not (grows(name) or _is_hidden(name))]
    return f"{strange[0]} was put there" if strange else None


def _is_hidden(name):
    """Tells what desktops and network file systems leave by themselves."""
    return any(part.startswith(".") for part in name.split("/"))


def _walk(folder) -> Iterator[tuple[str, Path]]:
    """Yields files and links below a folder, by their names from there."""
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*names, *links):
            path = Path(parent, name)
            yield path.relative_to(folder).as_posix(), path


def empty(folder) -> None:
    """Makes a folder, or empties it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, exist_ok=True)


def write_json(path, value) -> None:
    """Writes plain data, whole or not at all, down to the disk."""
    temporary = Path(f"{path}.tmp")
    with open(temporary, "w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(temporary.parent)


def read_json(path):
    """Returns what `write_json` wrote, or None if there is nothing."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        return None


def sync(path) -> None:
    """Brings a file, or the names in a folder, down to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
