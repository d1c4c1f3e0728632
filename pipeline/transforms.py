"""The floors of the job: labelled PTransforms, from items to an outcome."""

import apache_beam as beam

from pipeline.dofns import BAD
from pipeline.dofns import LEFT_OUT
from pipeline.dofns import Finish
from pipeline.dofns import KeepFirst
from pipeline.dofns import MakeImages
from pipeline.dofns import WriteShard
from pipeline.layout import folder_of
from pipeline.layout import shard_names
from pipeline.layout import shard_of
from pipeline.results import Plan
from pipeline.sources import Source

ENTRIES = "entries"


def _by_key(entry):
    return entry.digest


def _by_content(entry):
    return entry.content


def _is_within(entry, limit):
    return entry.digest <= limit


class SelectImages(beam.PTransform):
    """Entries -> a dict of the `ENTRIES` that stay, `BAD` and `LEFT_OUT`.

    Keys become unique; then, as the settings say, contents, and the number is
    limited to the smallest sha256 of keys.
    """

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def expand(self, entries):
        first = KeepFirst(_by_content, BAD, "another image has the same name")
        split = self._keep_first(entries, "names", _by_key, first, BAD)
        entries, bad, left_out = split[ENTRIES], split[BAD], []
        if self.settings.deduplicate:
            reason = "same bytes as another"
            first = KeepFirst(_by_key, LEFT_OUT, reason)
            split = self._keep_first(
                entries, "contents", _by_content, first, LEFT_OUT
            )
            entries = split[ENTRIES]
            left_out.append(split[LEFT_OUT])
        if self.settings.max_images is not None:
            entries, others = self._limit(entries)
            left_out.append(others)
        return {ENTRIES: entries, BAD: bad, LEFT_OUT: left_out}

    def _keep_first(self, entries, what, common, first, tag):
        return (
            entries
            | f"Name {what}"
            >> beam.Map(lambda e, common: (common(e), e), common)
            | f"Group {what}" >> beam.GroupByKey()
            | f"Unique {what}"
            >> beam.ParDo(first).with_outputs(tag, main=ENTRIES)
        )

    def _limit(self, entries):
        """Splits off all but the smallest digests."""
        smallest = (
            entries
            | "Digests" >> beam.Map(_by_key)
            | "Smallest"
            >> beam.combiners.Top.Smallest(self.settings.max_images)
            | "Largest of them"
            >> beam.Map(lambda digests: max(digests, default=b""))
        )
        limit = beam.pvalue.AsSingleton(smallest)
        kept = entries | "Keep" >> beam.Filter(
            lambda entry, limit: entry.digest <= limit, limit
        )
        others = (
            entries
            | "Leave"
            >> beam.Filter(lambda entry, limit: entry.digest > limit, limit)
            | "Why" >> beam.Map(lambda entry: "more than max_images")
        )
        return kept, others


class WriteShards(beam.PTransform):
    """Entries -> `(Shard, Statistics)` of every shard, empty ones too.

    Args:
        plan: `Plan`.
        folders: side input, all folders that give labels.
    """

    def __init__(self, plan: Plan, folders):
        super().__init__()
        self.plan = plan
        self.folders = folders

    def expand(self, entries):
        settings = self.plan.settings
        names = [(name, None) for name in shard_names(settings)]
        every = entries.pipeline | "Every shard" >> beam.Create(names)
        placed = entries | "Place" >> beam.Map(
            lambda entry: (shard_of(entry.digest, settings), entry)
        )
        return (
            (placed, every)
            | "With every shard" >> beam.Flatten()
            | "Group by shard" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(WriteShard(self.plan), self.folders)
        )


def create_pipeline(pipeline, source: Source, plan: Plan) -> None:
    """Puts the whole job on a Beam pipeline."""
    settings = plan.settings
    items = pipeline | "Read source" >> source.items()
    made = items | "Make images" >> beam.ParDo(
        MakeImages(settings, plan.work)
    ).with_outputs(BAD, LEFT_OUT, main=ENTRIES)
    entries = made[ENTRIES]
    folders = pipeline | "No folders" >> beam.Create([])
    if settings.labels and source.folders_are_classes:
        folders = (
            entries
            | "Folders" >> beam.Map(lambda entry: folder_of(entry.key))
            | "Distinct folders" >> beam.Distinct()
        )
    selected = entries | "Select" >> SelectImages(settings)
    shards = selected[ENTRIES] | "Shards" >> WriteShards(
        plan, beam.pvalue.AsList(folders)
    )
    left_out = (
        (made[LEFT_OUT], *selected[LEFT_OUT])
        | "All left out" >> beam.Flatten()
        | "By reason" >> beam.combiners.Count.PerElement()
    )
    parts = {
        "shard": shards,
        "bad": (made[BAD], selected[BAD]) | "All bad" >> beam.Flatten(),
        "left_out": left_out,
        "folder": folders,
        "made": entries | "Count" >> beam.combiners.Count.Globally(),
    }
    (
        [_part(kind, values) for kind, values in parts.items()]
        | "All results" >> beam.Flatten()
        | "Together" >> beam.GroupByKey()
        | "Finish" >> beam.ParDo(Finish(plan))
    )


def _part(kind, values):
    return values | f"Results: {kind}" >> beam.Map(
        lambda value: (None, (kind, value))
    )
