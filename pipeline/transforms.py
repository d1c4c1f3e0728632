"""The floors of the job: labelled PTransforms, from tasks to an outcome."""

import apache_beam as beam

from pipeline.dofns import Finish
from pipeline.dofns import KeepFirst
from pipeline.dofns import KeepSmallest
from pipeline.dofns import MakeImages
from pipeline.dofns import WriteShard
from pipeline.layout import folder_of
from pipeline.layout import shard_names
from pipeline.layout import shard_of
from pipeline.results import BAD
from pipeline.results import ENTRY
from pipeline.results import FOLDER
from pipeline.results import LEFT_OUT
from pipeline.results import SEEN
from pipeline.results import SHARD
from pipeline.results import Plan
from pipeline.sources import Source

# A member of a shard that is there so that the shard is.
EMPTY = "empty"


def _by_key(entry):
    return entry.digest


def _by_name(entry):
    return entry.key


def _by_content(entry):
    return entry.content


def _all_together(entry):
    return None


def _with(entry, common):
    """Returns an entry after what it has in common with others."""
    return common(entry), entry


def _only(parts, kind, name):
    """Returns the values of one kind."""
    return parts | f"{name}: {kind}" >> beam.FlatMap(
        lambda part: [part[1]] if part[0] == kind else []
    )


class SelectImages(beam.PTransform):
    """Entries -> `(entries that stay, parts that tell of the others)`.

    Keys become unique; then, as the settings say, contents, and the number is
    limited to the smallest sha256 of keys.
    """

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def expand(self, entries):
        names = KeepFirst(_by_content, BAD, "another image has the same name")
        contents = KeepFirst(_by_name, LEFT_OUT, "same bytes as another")
        steps = [("names", _by_key, names)]
        if self.settings.deduplicate:
            steps.append(("contents", _by_content, contents))
        if self.settings.max_images is not None:
            smallest = KeepSmallest(self.settings.max_images)
            steps.append(("all", _all_together, smallest))
        others = []
        for name, common, keep in steps:
            parts = (
                entries
                | f"With {name}" >> beam.Map(_with, common)
                | f"Group {name}" >> beam.GroupByKey()
                | f"Keep of {name}" >> beam.ParDo(keep)
            )
            others.append(parts)
            entries = _only(parts, ENTRY, f"Kept of {name}")
        return entries, others | "Others" >> beam.Flatten()


class WriteShards(beam.PTransform):
    """`(entries, folders)` -> `(Shard, Statistics)` of all shards, also empty.

    Every shard gets all folders, whose names decide the labels. A side input
    would do the same, but runners may compute it apart, from the first image
    on.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    def expand(self, inputs):
        entries, folders = inputs
        settings = self.plan.settings
        names = shard_names(settings)
        every = entries.pipeline | "Every shard" >> beam.Create(
            [(name, (EMPTY, None)) for name in names]
        )
        placed = entries | "Place" >> beam.Map(
            lambda entry: (shard_of(entry.digest, settings), (ENTRY, entry))
        )
        known = folders | "To every shard" >> beam.FlatMap(
            lambda folder: ((name, (FOLDER, folder)) for name in names)
        )
        return (
            (every, placed, known)
            | "Members" >> beam.Flatten()
            | "Group by shard" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(WriteShard(self.plan))
        )


def create_pipeline(pipeline, source: Source, plan: Plan) -> None:
    """Puts the whole job on a Beam pipeline."""
    settings = plan.settings
    made = (
        pipeline
        | "Tasks" >> source.tasks()
        | "Make images" >> beam.ParDo(MakeImages(source, plan))
    )
    entries = _only(made, ENTRY, "Made")
    folders = pipeline | "No folders" >> beam.Create([])
    if settings.labels and source.folders_are_classes:
        folders = (
            entries
            | "Folders" >> beam.Map(lambda entry: folder_of(entry.key))
            | "Distinct folders" >> beam.Distinct()
        )
    selected, others = entries | "Select" >> SelectImages(settings)
    shards = (selected, folders) | "Shards" >> WriteShards(plan)
    others = (made, others) | "All others" >> beam.Flatten()
    left_out = _only(others, LEFT_OUT, "Not written")
    results = {
        SHARD: shards,
        BAD: _only(others, BAD, "Not written"),
        LEFT_OUT: left_out | beam.combiners.Count.PerElement(),
        FOLDER: folders,
        SEEN: _only(made, SEEN, "Read"),
    }
    (
        [_result(kind, values) for kind, values in results.items()]
        | "All results" >> beam.Flatten()
        | "Together" >> beam.GroupByKey()
        | "Finish" >> beam.ParDo(Finish(plan))
    )


def _result(kind, values):
    return values | f"Results: {kind}" >> beam.Map(
        lambda value: (None, (kind, value))
    )
