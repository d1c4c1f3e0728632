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
from transgan_tf.manifest import Manifest
from transgan_tf.manifest import Shard
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
        _remove_work(plan.output, but=plan.work)
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


def remove_leftovers(folder: str) -> None:
    """Removes what interrupted jobs left of a local dataset that is there.

    Unless another job works on it. On remote file systems nothing tells a
    running job from an interrupted one, so all stays.
    """
    if files.is_remote(folder):
        return
    with contextlib.suppress(JobError), _locked(folder):
        _remove_work(folder)


def _remove_work(folder, but=""):
    for name in files.names_in(folder):
        path = files.join(folder, name)
        if _WORK_NAME.fullmatch(name) and path != but:
            files.delete(path)


def is_finished(plan: Plan, manifest: Manifest) -> bool:
    """Tells whether this very job has put the dataset in its place already.

    An earlier dataset may have had the same manifest; then shards of this job
    still wait among the work.
    """
    path = files.join(plan.output, MANIFEST)
    if not files.exists(path):
        return False
    same = files.read(path) == manifest.to_json().encode()
    names = {shard.name for shard in manifest.shards}
    return same and names.isdisjoint(files.names_in(plan.work))


def replace_shards(plan: Plan, shards: tuple[Shard, ...]) -> None:
    """Puts finished shards in the place of an earlier dataset's.

    The earlier manifest goes first: what is left must not pass for a dataset.
    Runners may begin anew where an attempt failed, so what that has done
    already is left as it is.

    Raises:
        JobError: a finished shard is gone.
    """
    files.delete(files.join(plan.output, MANIFEST))
    names = {shard.name for shard in shards}
    for name in files.names_in(plan.output):
        if re.fullmatch(SHARD_NAME, name) and name not in names:
            files.delete(files.join(plan.output, name))
    waiting = set(files.names_in(plan.work))
    for shard in shards:
        path = files.join(plan.output, shard.name)
        if shard.name in waiting:
            files.replace(files.join(plan.work, shard.name), path)
        elif not files.exists(path) or files.size(path) != shard.bytes:
            raise JobError(
                f"{shard.name} has vanished from {plan.work} before it came to "
                "its place: start the job again, and let nobody else work there"
            )
