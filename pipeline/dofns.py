"""The workers' side of the job: Beam DoFns around the pure functions."""

import contextlib
import dataclasses
import hashlib
import json
import pickle
import uuid
import warnings

import apache_beam as beam

from pipeline import files
from pipeline.layout import folder_of
from pipeline.output import is_finished
from pipeline.output import replace_shards
from pipeline.results import BAD
from pipeline.results import ENTRY
from pipeline.results import LABEL
from pipeline.results import LEFT_OUT
from pipeline.results import OUTCOME
from pipeline.results import SEEN
from pipeline.results import Plan
from pipeline.results import Results
from pipeline.sources import Source
from pipeline.spill import CONTENT_BYTES
from pipeline.spill import Entry
from pipeline.spill import SpillReader
from pipeline.spill import SpillWriter
from pipeline.statistics import Statistics
from pipeline.tfrecord import frame
from pipeline.transform import BadImage
from pipeline.transform import Filtered
from pipeline.transform import make_image
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import QUARANTINE
from transgan_tf.manifest import STATISTICS
from transgan_tf.manifest import Shard
from transgan_tf.records import encode


def bad_row(key: str, stage: str, reason: str) -> tuple[str, dict]:
    """Returns what to yield for a bad image."""
    return BAD, {"source": key, "stage": stage, "reason": reason}


class MakeImages(beam.DoFn):
    """A source's task -> its images, finished and spilled.

    Yields `ENTRY`, `BAD`, `LEFT_OUT` and `SEEN`.

    Args:
        source: `Source`, to read the task.
        plan: `Plan`.
    """

    def __init__(self, source: Source, plan: Plan):
        self.source = source
        self.plan = plan

    def setup(self):
        # Of odd but readable files Pillow has much to say.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def teardown(self):
        self.source.close()

    def process(self, task):
        spill = SpillWriter(self.plan.work)
        for item in self.source.read(task):
            others = list(self._make(item, spill))
            spill.note(bad=any(kind == BAD for kind, _ in others))
            yield from others
            if spill.is_full():
                yield from self._flush(spill)
        yield from self._flush(spill)

    def _flush(self, spill):
        yield SEEN, spill.seen
        yield from ((ENTRY, entry.pack()) for entry in spill.flush())

    def _make(self, item, spill):
        """Finishes an image, or yields why not."""
        try:
            if item.error is not None:
                raise BadImage("read", item.error)
            image = make_image(item.data, self.plan.settings)
        except BadImage as bad:
            yield bad_row(item.key, bad.stage, bad.reason)
        except Filtered as filtered:
            yield LEFT_OUT, (filtered.reason, 1)
        else:
            content = hashlib.sha256(item.data).digest()[:CONTENT_BYTES]
            label = item.label if self.plan.settings.labels else None
            spill.add(item.key, content, label, pickle.dumps(image))


class KeepFirst(beam.DoFn):
    """Of entries with something in common the first stays.

    `(what they have in common, packed entries)` -> one `ENTRY`; of the others
    `BAD` or `LEFT_OUT`.

    Args:
        order: function of an entry to sort by.
        kind: `BAD` or `LEFT_OUT`.
        reason: why the others go.
    """

    def __init__(self, order, kind: str, reason: str):
        self.order = order
        self.kind = kind
        self.reason = reason

    def process(self, group):
        entries = (Entry.unpack(packed) for packed in group[1])
        first, *others = sorted(entries, key=self.order)
        yield ENTRY, first.pack()
        for entry in others:
            if self.kind == BAD:
                yield bad_row(entry.key, "list", self.reason)
            else:
                yield LEFT_OUT, (self.reason, 1)


class WriteShard(beam.DoFn):
    """`(name, members)` -> `(Shard, Statistics)`, after writing the file.

    Members are pairs of `ENTRY` and a packed entry of the shard, or of `LABEL`
    and a pair of a folder and the number of its class.

    Records are in the order of their keys' sha256, which is as good as
    shuffled. The file is written under another name and renamed, so that
    trying again does no harm.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def process(self, group):
        name, members = group
        members = list(members)
        entries = [Entry.unpack(e) for kind, e in members if kind == ENTRY]
        entries.sort(key=lambda entry: entry.digest)
        labels = dict(label for kind, label in members if kind == LABEL)
        statistics, sha256, size = Statistics(), hashlib.sha256(), 0
        temporary = files.join(self.plan.work, f"{name}-{uuid.uuid4().hex}")
        with (
            contextlib.closing(SpillReader(self.plan.work)) as reader,
            files.create(temporary) as file,
        ):
            for entry in entries:
                image = pickle.loads(reader.read(entry))
                label = labels.get(folder_of(entry.key), entry.label)
                statistics.add_image(image.histogram, label, image.source_size)
                framed = frame(self._record(entry, image, label))
                file.write(framed)
                sha256.update(framed)
                size += len(framed)
        files.replace(temporary, files.join(self.plan.work, name))
        yield Shard(name, len(entries), size, sha256.hexdigest()), statistics

    def _record(self, entry, image, label):
        settings = self.plan.settings
        return encode(
            image.encoded,
            format=settings.format,
            height=settings.image_size,
            width=settings.image_size,
            filename=entry.key,
            label=label,
        )


class Finish(beam.DoFn):
    """All results of the job -> the dataset, and its `Outcome` in a file.

    The quarantine is written in any case; the rest only if there are images and
    few enough bad ones, and the manifest last. Trying again does no harm, not
    even after all was done.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def process(self, group):
        results = Results()
        for part in group[1]:
            results.add(*part)
        self._write(QUARANTINE, results.quarantine())
        outcome = results.outcome(self.plan)
        manifest = results.manifest(self.plan)
        if outcome.accepted and not is_finished(self.plan, manifest):
            replace_shards(self.plan, manifest.shards)
            self._write(STATISTICS, results.statistics(self.plan))
            self._write(MANIFEST, manifest.to_json())
        content = json.dumps(dataclasses.asdict(outcome)).encode()
        files.write(files.join(self.plan.work, OUTCOME), content)

    def _write(self, name, text):
        content = text.encode("utf-8", "surrogateescape")
        files.write(files.join(self.plan.output, name), content)
