"""The workers' side of the job: Beam DoFns around the pure functions."""

import dataclasses
import hashlib
import json
import pickle
import uuid
import warnings

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindows

from pipeline import files
from pipeline.layout import folder_of
from pipeline.layout import labels_by_folder
from pipeline.results import OUTCOME
from pipeline.results import Plan
from pipeline.results import Results
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
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import Shard
from transgan_tf.records import encode

# Names of further outputs: rows of the quarantine, and the reasons why sound
# images were left out.
BAD, LEFT_OUT = "bad", "left_out"


def bad_row(key: str, stage: str, reason: str) -> dict:
    """Returns a line of the quarantine."""
    return {"source": key, "stage": stage, "reason": reason}


class MakeImages(beam.DoFn):
    """`Item` -> `Entry` of the finished image; `BAD` rows; `LEFT_OUT` reasons.

    Args:
        settings: `DatasetSettings`.
        work: folder for spilled images.
    """

    def __init__(self, settings: DatasetSettings, work: str):
        self.settings = settings
        self.work = work

    def setup(self):
        # Of odd but readable files Pillow has much to say.
        warnings.filterwarnings("ignore", module=r"PIL\.")

    def start_bundle(self):
        self.spill = SpillWriter(self.work)

    def process(self, item):
        try:
            if item.error is not None:
                raise BadImage("read", item.error)
            image = make_image(item.data, self.settings)
        except BadImage as bad:
            row = bad_row(item.key, bad.stage, bad.reason)
            yield TaggedOutput(BAD, row)
        except Filtered as filtered:
            yield TaggedOutput(LEFT_OUT, filtered.reason)
        else:
            content = hashlib.sha256(item.data).digest()
            label = item.label if self.settings.labels else None
            self.spill.add(item.key, content, label, pickle.dumps(image))
            if self.spill.is_full():
                yield from self.spill.flush()

    def finish_bundle(self):
        for entry in self.spill.flush():
            yield GlobalWindows.windowed_value(entry)


class KeepFirst(beam.DoFn):
    """Of entries with something in common the first stays.

    `(what they have in common, entries)` -> `Entry`; the others go to an
    output named by `tag`.

    Args:
        order: function of an entry to sort by.
        tag: `BAD` or `LEFT_OUT`.
        reason: why the others go.
    """

    def __init__(self, order, tag: str, reason: str):
        self.order = order
        self.tag = tag
        self.reason = reason

    def process(self, group):
        first, *others = sorted(group[1], key=self.order)
        yield first
        for entry in others:
            out = self.reason
            if self.tag == BAD:
                out = bad_row(entry.key, "list", self.reason)
            yield TaggedOutput(self.tag, out)


class WriteShard(beam.DoFn):
    """`(name, entries)` -> `(Shard, Statistics)`, after writing the file.

    Records are in the order of their keys' sha256, which is as good as
    shuffled. The file is written under another name and renamed, so that
    trying again does no harm.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def process(self, group, folders):
        name, entries = group
        entries = [entry for entry in entries if entry is not None]
        entries.sort(key=lambda entry: entry.digest)
        labels = labels_by_folder(folders)
        statistics, sha256, size = Statistics(), hashlib.sha256(), 0
        temporary = files.join(self.plan.work, f"{name}-{uuid.uuid4().hex}")
        reader = SpillReader(self.plan.work)
        with files.create(temporary) as file:
            for entry in entries:
                image = pickle.loads(reader.read(entry))
                label = labels.get(folder_of(entry.key), entry.label)
                statistics.add_image(image.histogram, label, image.source_size)
                framed = frame(self._record(entry, image, label))
                file.write(framed)
                sha256.update(framed)
                size += len(framed)
        reader.close()
        files.replace(temporary, files.join(self.plan.output, name))
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
    """All results of the job -> its `Outcome`, after writing what is left.

    The quarantine is written in any case; the manifest last, and only if there
    are images and few enough bad ones.

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
        if outcome.accepted:
            self._write(STATISTICS, results.statistics(self.plan))
            self._write(MANIFEST, results.manifest(self.plan).to_json())
        else:
            for shard, _ in results.shards:
                files.delete(files.join(self.plan.output, shard.name))
        content = json.dumps(dataclasses.asdict(outcome)).encode()
        files.write(files.join(self.plan.work, OUTCOME), content)

    def _write(self, name, text):
        content = text.encode("utf-8", "surrogateescape")
        files.write(files.join(self.plan.output, name), content)
