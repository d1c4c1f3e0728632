"""The manifest: what makes a folder of TFRecords a dataset.

`manifest.json` is written last, after all files that it names. Pipeline,
training and checks share it; this module imports no TensorFlow.
"""

import json
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

from transgan_tf.checked import Checked
from transgan_tf.checked import ConfigError
from transgan_tf.checked import UserError
from transgan_tf.checked import from_dict
from transgan_tf.checked import require
from transgan_tf.checked import require_choice

MANIFEST = "manifest.json"
STATISTICS = "statistics.json"
QUARANTINE = "quarantine.jsonl"
SPLITS = ("train", "validation")
CROPS = ("center", "none")
FORMATS = ("png", "jpeg")


@dataclass(frozen=True)
class Shard(Checked):
    """One TFRecord file.

    Attributes:
        name: its name in the folder, such as `train-00000-of-00016.tfrecord`.
        count: number of records.
        bytes: its size.
        sha256: of the file, in hexadecimal.
    """

    name: str
    count: int
    bytes: int
    sha256: str

    prefix = "shard"

    @property
    def split(self) -> str:
        return self.name.partition("-")[0]


@dataclass(frozen=True)
class DatasetSettings(Checked):
    """What the records are made by, whatever runs the job.

    Attributes:
        image_size: side of the square images in pixels.
        channels: 1 for grey, 3 for RGB.
        crop: `"center"` for the largest centred square, `"none"` to refuse
            images that are not square.
        format: of the stored files, `"png"` or `"jpeg"`.
        quality: of JPEG files, 1 to 95.
        min_size: images whose shorter side has fewer pixels are left out.
        max_aspect: images whose longer side is more than so many times the
            shorter are left out; None for no limit.
        deduplicate: whether of files with the same bytes one stays.
        max_images: how many to keep at most; None for all.
        validation_fraction: share of the images in the split `validation`.
        shards: number of files of the split `train`.
        labels: whether sub-folders, or the source's own classes, give labels.
    """

    image_size: int
    channels: int = 3
    crop: str = "center"
    format: str = "png"
    quality: int = 95
    min_size: int = 1
    max_aspect: float | None = None
    deduplicate: bool = False
    max_images: int | None = None
    validation_fraction: float = 0.0
    shards: int = 16
    labels: bool = True

    def check(self):
        self.require_at_least(1, "image_size", "min_size", "shards")
        rule = "must be at most 4096, since an image is held in memory whole"
        require(self.image_size <= 4096, "image_size", rule, self.image_size)
        require(
            self.shards <= 99_999,
            "shards",
            "must be below 100,000",
            self.shards,
        )
        rule = "must be 1 (grey) or 3 (colour)"
        require(self.channels in (1, 3), "channels", rule, self.channels)
        require_choice("crop", self.crop, CROPS)
        require_choice("format", self.format, FORMATS)
        rule = "must lie between 1 and 95"
        require(1 <= self.quality <= 95, "quality", rule, self.quality)
        if self.max_aspect is not None:
            self.require_at_least(1.0, "max_aspect")
        if self.max_images is not None:
            self.require_at_least(1, "max_images")
        rule = "must be at least 0 and below 1"
        share = self.validation_fraction
        require(0 <= share < 1, "validation_fraction", rule, share)

    def shards_of(self, split: str) -> int:
        """Returns the number of files of a split, in proportion to `shards`."""
        share = self.validation_fraction
        if split == "validation":
            return max(1, round(self.shards * share)) if share else 0
        return self.shards


@dataclass(frozen=True)
class SourceFacts(Checked):
    """What a dataset was made of.

    Attributes:
        kind: of the source, such as `"folder"`.
        count: number of images that its listing names.
        digest: sha256 over the names and sizes in its listing, wherever it
            lies.
    """

    kind: str
    count: int
    digest: str

    prefix = "source"


@dataclass(frozen=True)
class Manifest(Checked):
    """What a dataset is, and what it was made of.

    Attributes:
        dataset: its name.
        settings: `DatasetSettings`.
        source: `SourceFacts`.
        fingerprint: sha256 of settings, source and version.
        tool: name and version of the program.
        classes: names of the labels 0, 1, ...; empty without labels.
        shards: all files, in the order of their names.
    """

    dataset: str
    settings: DatasetSettings
    source: SourceFacts
    fingerprint: str
    tool: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]

    prefix = "manifest"

    def shards_of(self, split: str) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)

    def count(self, split: str) -> int:
        """Returns the number of records of a split."""
        return sum(shard.count for shard in self.shards_of(split))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


class ManifestError(UserError):
    """A manifest that cannot be used; its text is one sentence."""


def parse_manifest(text: str, path) -> Manifest:
    """Reads a manifest.

    Raises:
        ManifestError: it is not one; the text names `path`.
    """
    try:
        return from_dict(Manifest, json.loads(text))
    except (ConfigError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ManifestError(
            f"{path} cannot be used ({error}): prepare the dataset again"
        ) from None


def load_manifest(folder) -> Manifest:
    """Reads the manifest of a dataset in a local folder.

    Raises:
        ManifestError: there is none, or it is broken.
    """
    path = Path(folder, MANIFEST)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise ManifestError(
            f"{folder} is not a dataset, since it has no {MANIFEST}: prepare "
            "it by `python -m pipeline.preprocess`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path} cannot be read ({error})") from None
    return parse_manifest(text, path)
