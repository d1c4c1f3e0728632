"""A dataset's folder: whose it is, what may be replaced, how it is finished.

Whatever is not finished lies in a folder of work, `.work-*`, within it. Only at
the end of a job its files come to their names, the manifest last. So a folder
without a manifest is ours if work lies in it, or nothing but the quarantine of
a job that failed.
"""

import contextlib
import fcntl
import os
import re

from pipeline import files
from pipeline.layout import SHARD_NAME
from pipeline.results import Plan
from pipeline.sources import Source
from transgan_tf.checked import UserError
from transgan_tf.checked import differences
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import QUARANTINE
from transgan_tf.manifest import STATISTICS
from transgan_tf.manifest import parse_manifest

WORK = ".work-"
_WORK_NAME = re.compile(re.escape(WORK) + "[0-9a-f]{32}")


class JobError(UserError):
    """A job that cannot start or did not succeed."""


def is_done(plan: Plan, source: Source) -> bool:
    """Tells whether the dataset is there, of these settings and images.

    Raises:
        JobError: another dataset is there, or this one is damaged.
    """
    path = files.join(plan.output, MANIFEST)
    if not files.exists(path):
        return False
    manifest = parse_manifest(files.read(path).decode("utf-8", "replace"), path)
    advice = "choose another --dataset name, or --overwrite"
    if manifest.fingerprint != plan.fingerprint:
        changes = [
            *differences(manifest.settings, plan.settings),
            *differences(manifest.source, plan.source),
        ]
        what = "; ".join(changes) or "another version of this program"
        raise JobError(
            f"{plan.output} is a dataset of other settings or images ({what}): "
            f"{advice}"
        )
    if source.modified() > files.modified(path):
        raise JobError(
            f"images have changed since {plan.output} was made: {advice}"
        )
    missing = {s.name for s in manifest.shards} - {*files.names_in(plan.output)}
    if missing:
        raise JobError(
            f"{plan.output} has lost {min(missing)}: --overwrite makes it again"
        )
    return True


def refuse_others(folder: str) -> None:
    """Raises `JobError` if a folder holds something that no job made."""
    names = set(files.names_in(folder))
    ours = MANIFEST in names or any(map(_WORK_NAME.fullmatch, names))
    if names and names != {QUARANTINE} and not ours:
        raise JobError(
            f"{folder} holds something that is not a dataset, such as "
            f"{min(names)}: choose another --dataset name or --output_dir, or "
            "--overwrite to add to it"
        )


@contextlib.contextmanager
def opened(plan: Plan):
    """Makes the folder of work and holds the dataset until the end.

    Raises:
        JobError: another job works on the dataset.
    """
    files.make_folder(plan.output)
    with _locked(plan.output):
        files.make_folder(plan.work)
        remove_work(plan.output, but=plan.work)
        try:
            yield
        except BaseException:
            # What the end may have begun to replace is still known as ours.
            files.delete(plan.work)
            files.make_folder(plan.work)
            raise
        files.delete(plan.work)


@contextlib.contextmanager
def _locked(folder):
    """Keeps other jobs on this machine from a local folder."""
    if files.is_remote(folder):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor, folder):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JobError(
            f"another job works on {folder}: wait for it, or choose another "
            "--dataset name"
        ) from None


def remove_work(folder: str, but: str = "") -> None:
    """Removes what interrupted jobs left."""
    for name in files.names_in(folder):
        path = files.join(folder, name)
        if _WORK_NAME.fullmatch(name) and path != but:
            files.delete(path)


def replace_shards(plan: Plan, names: list[str]) -> None:
    """Puts finished shards in the place of an earlier dataset's.

    The earlier manifest goes first: what is left must not pass for a dataset.
    """
    there = files.names_in(plan.output)
    shards = [name for name in there if re.fullmatch(SHARD_NAME, name)]
    for name in (MANIFEST, STATISTICS, *shards):
        files.delete(files.join(plan.output, name))
    for name in names:
        finished = files.join(plan.work, name)
        files.replace(finished, files.join(plan.output, name))
