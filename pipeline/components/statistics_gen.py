"""StatisticsGen: reads all images and says what they are like.

The numbers are of the TFRecords themselves, checksums included, so that they
hold whatever made the records. Needs no TensorFlow.
"""

import hashlib
import io
import json
import math
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.components.datasets import dataset_folder
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from pipeline.tfrecord import read_records
from transgan_tf.manifest import QUARANTINE
from transgan_tf.manifest import SPLITS
from transgan_tf.manifest import STATISTICS
from transgan_tf.manifest import Manifest
from transgan_tf.manifest import load_manifest
from transgan_tf.pictures import grid
from transgan_tf.pictures import write_png
from transgan_tf.records import decode

EXAMPLES_PNG = "examples.png"
SHOWN = 64
# Of the quarantine, which is there itself; some tell of a number of pixels.
MOST_REASONS = 20

_VALUES = range(256)


@dataclass
class Tally:
    """Sums over images of one split.

    Attributes:
        count, bytes: of the images' files.
        histogram: int64 `(C, 256)`, how many pixels have each value.
        labels: number of images by label, None for those without.
        digests: one for each image's file.
    """

    count: int = 0
    bytes: int = 0
    histogram: np.ndarray | int = 0
    labels: Counter = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.count += other.count
        self.bytes += other.bytes
        self.histogram = self.histogram + other.histogram
        self.labels.update(other.labels)
        self.digests += other.digests

    def summary(self, classes: tuple[str, ...]) -> dict:
        """Returns plain data for `statistics.json`."""
        labels = {name: self.labels[n] for n, name in enumerate(classes)}
        if self.labels[None]:
            labels["no label"] = self.labels[None]
        return {
            "count": self.count,
            "bytes": self.bytes,
            "channels": [_channel(row.tolist()) for row in self.histogram],
            "labels": labels,
        }


def run(examples: Artifact, statistics: Path) -> dict:
    """Writes `statistics.json` and `examples.png`, a grid of 64 images.

    Args:
        examples: of ExampleGen.
        statistics: folder of the output.

    Raises:
        ComponentError: a record is not what the manifest says.
    """
    folder = dataset_folder(examples.path)
    manifest = load_manifest(folder)
    tallies = _read_all(folder, manifest)
    digests = [d for tally in tallies.values() for d in tally.digests]
    made = json.loads((folder / STATISTICS).read_text())
    rows = (folder / QUARANTINE).read_text().splitlines()
    reasons = Counter(json.loads(row)["reason"] for row in rows)
    content = {
        "splits": {
            split: tally.summary(manifest.classes)
            for split, tally in tallies.items()
        },
        "image_size": manifest.settings.image_size,
        "channels": manifest.settings.channels,
        "classes": manifest.classes,
        "duplicates": len(digests) - len(set(digests)),
        # Before they were cut; the records do not have it any more.
        "shorter_sides": made["shorter_side_of_sources"],
        "left_out": made["left_out"],
        "quarantined": len(rows),
        "quarantined_by": dict(reasons.most_common(MOST_REASONS)),
        "examples_png": EXAMPLES_PNG,
    }
    text = json.dumps(content, indent=2) + "\n"
    (statistics / "statistics.json").write_text(text)
    shown = list(islice(_train_images(folder, manifest), SHOWN))
    write_png(statistics / EXAMPLES_PNG, grid(np.stack(shown)))
    images = {split: tally.count for split, tally in tallies.items()}
    print(f"{folder}: {images}, {len(rows)} quarantined")
    return {"statistics": {"images": sum(images.values())}}


def _channel(histogram):
    """Returns mean, deviation and counts of a channel's values, 0 to 255."""
    pixels = sum(histogram)
    total = sum(n * v for n, v in zip(histogram, _VALUES, strict=True))
    square = sum(n * v * v for n, v in zip(histogram, _VALUES, strict=True))
    # In whole numbers up to the last step, so that it is exact.
    deviation = math.sqrt(square * pixels - total**2) / pixels
    mean = total / pixels
    return {"mean": mean, "deviation": deviation, "histogram": histogram}


def _read_all(folder, manifest: Manifest) -> dict[str, Tally]:
    """Returns the tally of each split that has images."""
    tallies = {split: Tally() for split in SPLITS}

    def read(shard):
        return shard.split, _read_shard(folder / shard.name, shard, manifest)

    # Pillow decodes outside Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for split, tally in threads.map(read, manifest.shards):
            tallies[split].add(tally)
    return {split: tally for split, tally in tallies.items() if tally.count}


def _read_shard(path, shard, manifest):
    tally = Tally()
    for record, image in _records(path, manifest):
        rows = [np.bincount(c.ravel(), minlength=256) for c in image.T]
        digest = hashlib.blake2b(record["encoded"], digest_size=16).digest()
        size, label = len(record["encoded"]), record["label"]
        one = Tally(1, size, np.stack(rows), Counter({label: 1}), [digest])
        tally.add(one)
    if tally.count != shard.count:
        raise _damaged(path, f"{tally.count} records, not {shard.count}")
    return tally


def _train_images(folder, manifest):
    """Yields images in the order of the files, which is one by hashes."""
    for shard in manifest.shards_of("train"):
        for _, image in _records(folder / shard.name, manifest):
            yield image


def _records(path, manifest):
    """Yields each record of a file, decoded, with its pixels `(H, W, C)`."""
    settings = manifest.settings
    side, channels = settings.image_size, settings.channels
    with open(path, "rb") as file:
        try:
            for content in read_records(file):
                record = decode(content)
                pixels = np.asarray(Image.open(io.BytesIO(record["encoded"])))
                yield record, pixels.reshape(side, side, channels)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from None


def _damaged(path, what):
    return ComponentError(
        f"{path} is damaged ({what}): remove its folder "
        f"{path.parents[1]}, so that ExampleGen runs again"
    )
