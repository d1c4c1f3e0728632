"""A model's folder: its numbered versions, and how a new one comes in.

A server polls the folder and loads a version as soon as it sees the number.
So a version is made in a sibling whose name is no number, brought down to the
disk, and renamed, which is one step on one file system. A version is never
changed and a number is never given anew while a later one exists: a server
that has loaded it would go on with what it was.

Imports no TensorFlow.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from transgan_tf.checked import UserError

SAVED_MODEL = "saved_model.pb"
CARD = "model_card.json"
# In a card: the number of the version that this one brings back.
ORIGIN = "republished_from"

_STAGING = ".staging-"
_LOCK, _PUSHING = ".lock", ".pushing"
_LEAST, _MOST = -(2**63), 2**63 - 1
# The white space that Abseil's `SimpleAtoi` passes over.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*")


class VersionError(UserError):
    """A model's folder that cannot be used as it was meant to be."""


def parse_version(name: str) -> int | None:
    """Returns a name's number, or None if it is none to TensorFlow Serving.

    An int64 in decimal digits; leading zeros, a sign and white space around it
    are allowed.
    """
    if not _NUMBER.fullmatch(name):
        return None
    number = int(name)
    return number if _LEAST <= number <= _MOST else None


def find_versions(model_dir) -> dict[int, Path]:
    """Returns what a server takes for versions, from old to new.

    Of two names of one number, such as `1` and `01`, one.

    Raises:
        VersionError: the folder is missing, or cannot be read.
    """
    try:
        names = sorted(os.listdir(model_dir))
    except OSError as error:
        raise VersionError(
            f"{model_dir} cannot be read ({error.strerror}): name the folder "
            "of a model, which holds its versions 1, 2, ..."
        ) from None
    numbered = [(parse_version(name), name) for name in names]
    return {
        number: Path(model_dir, name)
        for number, name in sorted(n for n in numbered if n[0] is not None)
    }


def refuse_version(model_dir) -> None:
    """Raises `VersionError` for the folder of a version, not of a model."""
    if os.path.exists(Path(model_dir, SAVED_MODEL)):
        raise VersionError(
            f"{model_dir} is a version itself: name the folder that holds it, "
            f"--model_dir={Path(model_dir).resolve().parent}"
        )


@contextlib.contextmanager
def staging(model_dir) -> Iterator[Path]:
    """Gives a new folder inside a model's, which no server looks at.

    It is gone at the end, unless `publish` has renamed it. What processes that
    were killed have left is removed, too, if no other is at work.

    Args:
        model_dir: made if it is missing.

    Raises:
        VersionError: the model's folder cannot be written, or is something
            else.
    """
    model_dir = Path(model_dir)
    folder = model_dir / f"{_STAGING}{uuid.uuid4().hex}"
    with contextlib.ExitStack() as stack:
        with _made(model_dir):
            stack.enter_context(_at_work(model_dir))
            folder.mkdir()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def check_writable(model_dir) -> None:
    """Raises `VersionError` for a folder that could not take a version.

    Writes nothing: where the folder is missing, it looks at the one that it
    would be made in.
    """
    refuse_version(model_dir)
    if os.path.isfile(model_dir):
        raise VersionError(f"{model_dir} is a file: choose another --model_dir")
    place = Path(model_dir).absolute()
    while not os.path.exists(place):
        place = place.parent
    if not os.path.isdir(place):
        raise _unwritable(model_dir, os.strerror(errno.ENOTDIR))
    by_effective_user = os.access in os.supports_effective_ids
    if not os.access(place, os.W_OK | os.X_OK, effective_ids=by_effective_user):
        raise _unwritable(model_dir, os.strerror(errno.EACCES))


@contextlib.contextmanager
def pushing(model_dir) -> Iterator[None]:
    """Lets one process at a time look at the versions and add to them.

    For who must not publish what another has just published. It waits, and
    makes the folder if it is missing.

    Raises:
        VersionError: see `staging`.
    """
    model_dir = Path(model_dir)
    with contextlib.ExitStack() as stack:
        with _made(model_dir):
            file = stack.enter_context(open(model_dir / _PUSHING, "ab"))
        _lock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _made(model_dir):
    """Makes a model's folder; for what is written there in the block."""
    check_writable(model_dir)
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        _sync(model_dir.parent)
        yield
    except OSError as error:
        raise _unwritable(model_dir, error.strerror) from None


def _unwritable(model_dir, reason):
    return VersionError(
        f"{model_dir} cannot be written ({reason}): choose another "
        "--model_dir, or give yourself permission"
    )


@contextlib.contextmanager
def _at_work(model_dir):
    """Holds a lock that all exporters share; cleans up if there is no other.

    The system lets go of a killed process's lock.
    """
    with open(model_dir / _LOCK, "ab") as file:
        if _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            for leftover in model_dir.glob(f"{_STAGING}*"):
                shutil.rmtree(leftover, ignore_errors=True)
        _lock(file, fcntl.LOCK_SH)
        yield


def _lock(file, how):
    """Returns whether the file is locked now.

    Where a file system knows no locks, nobody cleans up.
    """
    try:
        fcntl.flock(file, how)
    except OSError:
        return False
    return True


def publish(folder: Path) -> Path:
    """Makes a folder of `staging` the model's newest version.

    Everything in it is brought down to the disk first. Of several processes
    each gets a number of its own.

    Returns:
        The version's folder.

    Raises:
        VersionError: there is no higher number.
    """
    _sync_tree(folder)
    while True:
        number = max([0, *find_versions(folder.parent)]) + 1
        if number > _MOST:
            raise VersionError(
                f"{folder.parent} has the version {_MOST}, after which there "
                "is no number: move it away"
            )
        target = folder.parent / str(number)
        try:
            # Fails if another process has just taken the number.
            folder.rename(target)
        except OSError as error:
            taken = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
            if error.errno in taken:
                continue
            raise
        _sync(folder.parent)
        return target


def _sync_tree(folder):
    """Brings files, and the folders that name them, down to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(Path(parent, name))
        _sync(parent)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(published: Path, keep: int) -> list[Path]:
    """Removes the oldest versions, never what was just published.

    Each is renamed first, so that no server sees half of it.

    Args:
        published: the version's folder.
        keep: how many versions to keep, at least 1.

    Returns:
        The folders that were removed.
    """
    old = list(find_versions(published.parent).values())[:-keep]
    old = [path for path in old if path != published]
    for path in old:
        condemned = path.with_name(f"{_STAGING}{uuid.uuid4().hex}")
        # Another process may have been faster.
        with contextlib.suppress(FileNotFoundError):
            path.rename(condemned)
            _remove(condemned)
    return old


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def earlier_version(model_dir) -> Path:
    """Returns the version that was served before the newest one.

    If the newest brings an older one back, the one before that older one: so
    going back twice goes back by two.

    Raises:
        VersionError: there is none.
    """
    versions = find_versions(model_dir)
    if not versions:
        raise VersionError(f"{model_dir} has no version: export one first")
    origin = origin_of(versions[max(versions)])
    earlier = [number for number in versions if number < origin]
    if not earlier:
        raise VersionError(
            f"{model_dir} has no version before {origin} to go back to: it has "
            f"{', '.join(map(str, versions))}"
        )
    return versions[max(earlier)]


def origin_of(version: Path) -> int:
    """Returns the number of the version that this one is a copy of.

    Its own number for one that is no copy.
    """
    number = parse_version(version.name)
    try:
        origin = json.loads(Path(version, CARD).read_text())[ORIGIN]
    except (OSError, ValueError, KeyError, TypeError):
        # Exported by another program, perhaps.
        return number
    return origin if type(origin) is int and origin < number else number


def copy_version(version: Path, folder: Path) -> None:
    """Copies a version's files into a folder of `staging`; notes the origin.

    Raises:
        OSError: it cannot be read, or there is no room.
    """
    shutil.copytree(version, folder, dirs_exist_ok=True)
    path = folder / CARD
    card = json.loads(path.read_text()) if path.is_file() else {}
    card[ORIGIN] = origin_of(version)
    write_card(folder, card)


def write_card(folder: Path, card: dict) -> None:
    """Writes `model_card.json` into a version that is being made."""
    text = json.dumps(card, indent=2, allow_nan=False) + "\n"
    Path(folder, CARD).write_text(text)
