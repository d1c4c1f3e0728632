"""What a job is to do, and what came of it."""

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass

from pipeline import files
from pipeline.layout import class_names
from pipeline.layout import shard_names
from pipeline.statistics import Statistics
from transgan_tf.manifest import SPLITS
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import Manifest
from transgan_tf.manifest import SourceFacts
from transgan_tf.version import __version__

# What workers send comes as pairs of kind and value: an entry that goes on, a
# row of the quarantine, why a sound image was left out, how many images were
# read, a folder that may be a class, a folder's label, a finished shard. Beam's
# own tagged outputs do not work on all its runners (DaskRunner mixes them up,
# and drops what `finish_bundle` yields).
ENTRY, BAD, LEFT_OUT, SEEN = "entry", "bad", "left_out", "seen"
FOLDER, LABEL, SHARD = "folder", "label", "shard"

# In the folder of work: the launcher reads what the workers found.
OUTCOME = "outcome.json"
# Changes when the same settings and source begin to make other records.
RECORDS_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What a job is to do.

    Attributes:
        dataset: name of the dataset.
        settings: `DatasetSettings`.
        source: `SourceFacts`.
        classes: names of the labels that the source itself gives.
        output: folder of the dataset.
        work: folder in it for what is not finished.
        max_bad_fraction: share of bad images above which the job fails.
    """

    dataset: str
    settings: DatasetSettings
    source: SourceFacts
    classes: tuple[str, ...]
    output: str
    work: str
    max_bad_fraction: float

    @property
    def fingerprint(self) -> str:
        """sha256 of all that the records depend on."""
        facts = [
            RECORDS_VERSION,
            self.dataset,
            dataclasses.asdict(self.settings),
            dataclasses.asdict(self.source),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        accepted: whether the dataset was finished.
        problem: one sentence if not.
        images: number of images by split.
        quarantined: number of bad images.
        left_out: number of sound images by the reason why they were left out.
    """

    accepted: bool
    problem: str
    images: dict[str, int]
    quarantined: int
    left_out: dict[str, int]


class Results:
    """Collects the parts that the workers send, in whatever order."""

    def __init__(self):
        self.shards = []
        self.bad = []
        self.left_out = Counter()
        self.folders = []
        self.seen = 0

    def add(self, kind: str, value) -> None:
        """Takes in one part; of what was left out, a reason and a number."""
        if kind == SHARD:
            self.shards.append(value)
            self.shards.sort(key=lambda pair: pair[0].name)
        elif kind == BAD:
            self.bad.append(value)
        elif kind == LEFT_OUT:
            reason, number = value
            self.left_out[reason] += number
        elif kind == FOLDER:
            self.folders.append(value)
        elif kind == SEEN:
            self.seen += value
        else:
            raise ValueError(f"unknown part {kind!r}")

    def quarantine(self) -> str:
        """Returns JSON lines, sorted by source."""
        rows = sorted(self.bad, key=lambda row: tuple(row.values()))
        return "".join(f"{json.dumps(row)}\n" for row in rows)

    def images(self) -> dict[str, int]:
        counts = dict.fromkeys(SPLITS, 0)
        for shard, _ in self.shards:
            counts[shard.split] += shard.count
        return counts

    def outcome(self, plan: Plan) -> Outcome:
        images, bad = self.images(), len(self.bad)
        problem = self._problem(plan)
        return Outcome(not problem, problem, images, bad, self._left_out())

    def _left_out(self):
        return dict(sorted(self.left_out.items()))

    def _problem(self, plan):
        bad, listed = len(self.bad), plan.source.count
        if self._lost(plan):
            files = len(shard_names(plan.settings))
            return (
                "Beam's runner has lost or doubled what workers sent "
                f"({self._told():,} of {self.seen:,} images are written, bad "
                f"or left out, in {len(self.shards):,} of {files:,} files): "
                "start again with another --runner, or "
                "--direct_running_mode=in_memory"
            )
        if self.seen != listed:
            return (
                f"the source has changed: {listed:,} images were listed and "
                f"{self.seen:,} read; start again when it is complete"
            )
        if bad > plan.max_bad_fraction * self.seen:
            return (
                f"{bad:,} of {self.seen:,} images are bad, more than the "
                f"share of {plan.max_bad_fraction:g} that --max_bad_fraction "
                "allows: see quarantine.jsonl"
            )
        if not self.images()["train"]:
            return "no image is left for the split train: check the source"
        return ""

    def _told(self):
        """Returns of how many images it is known what became of them."""
        written = sum(self.images().values())
        return written + len(self.bad) + sum(self.left_out.values())

    def _lost(self, plan):
        """Tells whether the runner lost or doubled what workers sent."""
        names = [shard.name for shard, _ in self.shards]
        complete = names == shard_names(plan.settings)
        return self._told() != self.seen or not complete

    def classes(self, plan: Plan) -> tuple[str, ...]:
        if not plan.settings.labels:
            return ()
        return plan.classes or class_names(self.folders)

    def manifest(self, plan: Plan) -> Manifest:
        return Manifest(
            plan.dataset,
            plan.settings,
            plan.source,
            plan.fingerprint,
            f"transgan-tf {__version__}",
            self.classes(plan),
            tuple(shard for shard, _ in self.shards),
        )

    def statistics(self, plan: Plan) -> str:
        """Returns the text of `statistics.json`."""
        total = Statistics()
        for _, statistics in self.shards:
            total.add(statistics)
        content = {
            "images": self.images(),
            "quarantined": len(self.bad),
            "left_out": self._left_out(),
            "shorter_side_of_sources": total.shorter_side_bins(),
            "channels": total.channels(),
            "labels": total.label_counts(self.classes(plan)),
        }
        return json.dumps(content, indent=2) + "\n"


def read_outcome(plan: Plan) -> Outcome:
    """Reads what the workers found, once the job has ended."""
    content = files.read(files.join(plan.work, OUTCOME))
    return Outcome(**json.loads(content))
