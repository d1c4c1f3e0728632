"""One job from start to end: what it may replace, its progress, its result."""

import re
import threading
import time
import uuid

import apache_beam as beam
from tqdm import tqdm

from pipeline import files
from pipeline.layout import SHARD_NAME
from pipeline.results import Outcome
from pipeline.results import Plan
from pipeline.results import read_outcome
from pipeline.sources import Source
from pipeline.spill import spilled_images
from pipeline.transforms import create_pipeline
from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checked import differences
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import QUARANTINE
from transgan_tf.manifest import STATISTICS
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import parse_manifest

WORK = ".work-"
# How often the progress is looked at; on a remote file system that costs.
LOCAL_SECONDS, REMOTE_SECONDS = 0.5, 15.0


class JobError(UserError):
    """A job that cannot start or did not succeed."""


def make_plan(
    dataset: str,
    settings: DatasetSettings,
    source: Source,
    output_dir: str,
    max_bad_fraction: float,
) -> Plan:
    """Lists the source and says what is to be made of it.

    Raises:
        JobError: the source holds no image.
    """
    facts = source.facts()
    if not facts.count:
        raise JobError(
            f"the {facts.kind} holds no PNG, JPEG, WebP, BMP or GIF file: "
            "check --source"
        )
    output = files.join(output_dir, dataset)
    work = files.join(output, f"{WORK}{uuid.uuid4().hex}")
    return Plan(
        dataset,
        settings,
        facts,
        source.classes,
        output,
        work,
        max_bad_fraction,
    )


def prepare(plan: Plan, source: Source, options, overwrite: bool) -> int:
    """Makes the dataset unless it is there; returns the exit status."""
    if is_done(plan, source, overwrite):
        print(f"{plan.output} is there already, of these images and settings")
        return cli.DONE
    clear(plan.output, overwrite)
    files.make_folder(plan.work)
    start = time.monotonic()
    try:
        with Progress(plan):
            pipeline = beam.Pipeline(options=options)
            create_pipeline(pipeline, source, plan)
            pipeline.run().wait_until_finish()
        outcome = read_outcome(plan)
    finally:
        files.delete(plan.work)
    if not outcome.accepted:
        raise JobError(outcome.problem)
    print(summary(plan, outcome, time.monotonic() - start))
    return cli.DONE


def is_done(plan: Plan, source: Source, overwrite: bool) -> bool:
    """Tells whether the dataset is there, of these settings and images.

    Raises:
        JobError: another dataset is there, and is not to be replaced.
    """
    path = files.join(plan.output, MANIFEST)
    if overwrite or not files.exists(path):
        return False
    manifest = parse_manifest(files.read(path).decode(), path)
    if manifest.fingerprint != plan.fingerprint:
        changes = [
            *differences(manifest.settings, plan.settings),
            *differences(manifest.source, plan.source),
        ]
        what = "; ".join(changes) or "another version of this program"
        raise JobError(
            f"{plan.output} is a dataset of other settings or images ({what}): "
            "choose another --dataset name, or --overwrite"
        )
    if source.modified() > files.modified(path):
        raise JobError(
            f"images have changed since {plan.output} was made: --overwrite "
            "makes it again, or choose another --dataset name"
        )
    return True


def clear(folder: str, overwrite: bool) -> None:
    """Removes what an earlier job left, and nothing else.

    Raises:
        JobError: the folder holds something else, without `overwrite`.
    """
    names = files.names_in(folder)
    ours = [name for name in names if _is_ours(name)]
    others = [name for name in names if not _is_ours(name)]
    if others and not overwrite:
        raise JobError(
            f"{folder} holds something that is not a dataset, such as "
            f"{others[0]}: choose another --dataset name or --output_dir, or "
            "--overwrite to add to it"
        )
    # The manifest first: what is left of a dataset must not pass for one.
    for name in sorted(ours, key=lambda name: name != MANIFEST):
        files.delete(files.join(folder, name))


def _is_ours(name):
    plain = re.sub(r"\.[0-9a-f]{32}\.tmp$", "", name)
    return (
        plain in (MANIFEST, STATISTICS, QUARANTINE)
        or name.startswith(WORK)
        or re.fullmatch(SHARD_NAME, plain) is not None
    )


class Progress:
    """Shows on standard error how many images are done, while a job runs."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._show, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *error):
        self.stopped.set()
        self.thread.join()

    def _show(self):
        remote = files.is_remote(self.plan.work)
        seconds = REMOTE_SECONDS if remote else LOCAL_SECONDS
        with tqdm(
            total=self.plan.source.count, unit="img", dynamic_ncols=True
        ) as bar:
            while not self.stopped.wait(seconds):
                bar.n = spilled_images(self.plan.work)
                bar.refresh()
            bar.n = spilled_images(self.plan.work)


def summary(plan: Plan, outcome: Outcome, seconds: float) -> str:
    """Returns what the user is told at the end."""
    images = sum(outcome.images.values())
    lines = [
        f"{plan.output}: {images:,} images of {plan.settings.image_size} px"
    ]
    if outcome.images["validation"]:
        counts = (f"{n:,} {split}" for split, n in outcome.images.items())
        lines.append(f"  {', '.join(counts)}")
    for reason, count in outcome.left_out.items():
        lines.append(f"  {count:,} left out: {reason}")
    if outcome.quarantined:
        lines.append(f"  {outcome.quarantined:,} bad, see {QUARANTINE}")
    lines.append(
        f"  in {seconds:.0f} s, {images / seconds:.0f} images a second"
    )
    return "\n".join(lines)
