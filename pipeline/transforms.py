"""The floors of the job: labelled PTransforms, from tasks to an outcome."""

import apache_beam as beam

from pipeline.dofns import Finish
from pipeline.dofns import KeepFirst
from pipeline.dofns import MakeImages
from pipeline.dofns import WriteShard
from pipeline.layout import folder_of
from pipeline.layout import labels_by_folder
from pipeline.layout import shard_names
from pipeline.layout import shard_of
from pipeline.results import BAD
from pipeline.results import ENTRY
from pipeline.results import FOLDER
from pipeline.results import LABEL
from pipeline.results import LEFT_OUT
from pipeline.results import SEEN
from pipeline.results import SHARD
from pipeline.results import Plan
from pipeline.sources import Source
from pipeline.spill import Entry

# A member of a shard that is there so that the shard is.
EMPTY = "empty"


def _by_key(entry):
    return entry.digest


def _by_name(entry):
    return entry.key


def _by_content(entry):
    return entry.content


def _with(packed, common):
    """Returns an entry after what it has in common with others."""
    return common(Entry.unpack(packed)), packed


def _only(parts, kind, name):
    """Returns the values of one kind."""
    return parts | f"{name}: {kind}" >> beam.FlatMap(
        lambda part: [part[1]] if part[0] == kind else []
    )


def _every(sources, kind):
    """Returns the values of one kind from several sources of parts."""
    # Chosen first: a runner may hold all that is to flow together.
    chosen = [
        _only(parts, kind, f"Of {number}")
        for number, parts in enumerate(sources)
    ]
    return chosen | f"Every {kind}" >> beam.Flatten()


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
        if self.settings.max_images is not None:
            most = KeepSmallest(self.settings.max_images)
            entries, too_many = entries | "Keep smallest" >> most
            others.append(too_many)
        return entries, others


class KeepSmallest(beam.PTransform):
    """Entries -> `(so many of them, LEFT_OUT with the number of others)`.

    Workers compare what they hold before they pass it on, so nobody holds more
    than stay. Beam's own global combiner has a side input.

    Args:
        number: how many stay, those with the smallest digests.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number

    def expand(self, entries):
        smallest = beam.combiners.TopCombineFn(self.number, reverse=True)
        kept = (
            entries
            | "With digests" >> beam.Map(_with, _by_key)
            | "For smallest" >> beam.Map(lambda pair: (None, pair))
            | "Smallest" >> beam.CombinePerKey(smallest)
            | "Kept" >> beam.FlatMap(lambda group: [p for _, p in group[1]])
        )
        others = (
            entries
            | "For number" >> beam.Map(lambda entry: (None, 1))
            | "Number" >> beam.CombinePerKey(sum)
            | "Too many" >> beam.FlatMap(self._others)
        )
        return kept, others

    def _others(self, group):
        _, count = group
        if count > self.number:
            yield LEFT_OUT, ("more than max_images", count - self.number)


def _place(packed, settings):
    """Returns an entry after the name of its shard."""
    return shard_of(Entry.unpack(packed).digest, settings), (ENTRY, packed)


def _folder_and_shard(packed, settings):
    entry = Entry.unpack(packed)
    return folder_of(entry.key), shard_of(entry.digest, settings)


def _labels(group):
    """Returns all folders with the numbers of their classes."""
    return [(f, (LABEL, n)) for f, n in labels_by_folder([*group[1]]).items()]


def _to_its_shards(group):
    """Returns a folder and its label for each shard that needs it."""
    folder, parts = group
    parts = list(parts)
    labels = [value for kind, value in parts if kind == LABEL]
    shards = [value for kind, value in parts if kind == SHARD]
    return [(s, (LABEL, (folder, n))) for s in shards for n in labels]


class LabelFolders(beam.PTransform):
    """`(entries, folders)` -> labels of folders for the shards that need them.

    All folders' names decide the labels. A side input would do the same, but
    runners may compute it apart, from the first image on.
    """

    def __init__(self, settings):
        super().__init__()
        self.settings = settings

    def expand(self, inputs):
        entries, folders = inputs
        labels = (
            folders
            | "All" >> beam.Map(lambda folder: (None, folder))
            | "Group all" >> beam.GroupByKey()
            | "Labels" >> beam.FlatMap(_labels)
        )
        needed = (
            entries
            | "Needed" >> beam.Map(_folder_and_shard, self.settings)
            | "Distinct" >> beam.Distinct()
            | "In" >> beam.MapTuple(lambda folder, s: (folder, (SHARD, s)))
        )
        return (
            (labels, needed)
            | "Both" >> beam.Flatten()
            | "Group by folder" >> beam.GroupByKey()
            | "To its shards" >> beam.FlatMap(_to_its_shards)
        )


class WriteShards(beam.PTransform):
    """`(entries, labels)` -> `(Shard, Statistics)` of all shards, also empty.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan

    def expand(self, inputs):
        entries, labels = inputs
        settings = self.plan.settings
        every = entries.pipeline | "Every shard" >> beam.Create(
            [(name, (EMPTY, None)) for name in shard_names(settings)]
        )
        placed = entries | "Place" >> beam.Map(_place, settings)
        return (
            (every, placed, labels)
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
    selected, others = entries | "Select" >> SelectImages(settings)
    folders = pipeline | "No folders" >> beam.Create([])
    labels = pipeline | "No labels" >> beam.Create([])
    if settings.labels and source.folders_are_classes:
        folders = (
            entries
            | "Folders" >> beam.Map(lambda e: folder_of(Entry.unpack(e).key))
            | "Distinct folders" >> beam.Distinct()
        )
        labels = (selected, folders) | "Label" >> LabelFolders(settings)
    shards = (selected, labels) | "Shards" >> WriteShards(plan)
    others = [made, *others]
    left_out = _every(others, LEFT_OUT)
    results = {
        SHARD: shards,
        BAD: _every(others, BAD),
        LEFT_OUT: left_out | "Numbers left out" >> beam.CombinePerKey(sum),
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
