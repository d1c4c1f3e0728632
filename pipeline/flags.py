"""Flags that several command lines share: of a dataset, of a pipeline."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf.checked import ConfigError
from transgan_tf.checked import require
from transgan_tf.configs import Config
from transgan_tf.manifest import DatasetSettings
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names


@dataclass(frozen=True)
class DatasetFlags:
    """Which images, from where, and what becomes of them."""

    dataset: str
    """A preset's name, or a name of your own."""
    source: str | None = None
    """Folder, .zip, .tar, .tar.gz, LSUN's *_lmdb, a tensorflow-datasets
    builder such as cifar10, or digits; gs:// and the like work too. A preset
    may have a usual one."""
    source_type: (
        Literal["folder", "zip", "tar", "tar.gz", "lmdb", "tfds", "digits"]
        | None
    ) = None
    """What the source is, if its name does not tell."""
    split: str | None = None
    """Split of a tensorflow-datasets builder, such as train+unlabelled."""
    tfds_data_dir: str | None = None
    """Where tensorflow-datasets keeps its data."""
    image_size: int | None = None
    """Side of the square images in pixels."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for colour."""
    crop: Literal["center", "none"] | None = None
    """The largest centred square, or none to refuse what is not square."""
    format: Literal["png", "jpeg"] = DatasetSettings.format
    """Of the stored images."""
    quality: int | None = None
    """Of JPEG, 1 to 95; 95 if left out."""
    min_size: int = DatasetSettings.min_size
    """Leave out images whose shorter side has fewer pixels."""
    max_aspect: float | None = DatasetSettings.max_aspect
    """Leave out images that are so many times longer than short."""
    deduplicate: bool = DatasetSettings.deduplicate
    """Keep one of the files that have the same bytes."""
    max_images: int | None = DatasetSettings.max_images
    """Keep at most so many."""
    validation_fraction: float = DatasetSettings.validation_fraction
    """Share of the images that goes into the split validation."""
    shards: int = DatasetSettings.shards
    """Number of files of the split train."""
    labels: bool = DatasetSettings.labels
    """Whether sub-folders, or the source's classes, give labels."""
    max_bad_fraction: float = 0.01
    """Share of bad images above which the job fails."""

    def check(self) -> None:
        """Raises `ConfigError` for flags that cannot be meant so."""
        name, share = self.dataset, self.max_bad_fraction
        if Path(name).name != name or name in ("", ".."):
            raise ConfigError(f"--dataset is a name, not a path, got {name!r}")
        if not 0 <= share <= 1:
            raise ConfigError(
                f"--max_bad_fraction must lie between 0 and 1, got {share}"
            )
        if self.quality is not None and self.format != "jpeg":
            raise ConfigError(
                f"--quality is of JPEG files, and {self.format} is to be "
                "stored: leave it out, or say --format=jpeg"
            )

    def settings(self) -> DatasetSettings:
        """Returns the flags' settings, completed by the preset's."""
        known = self.usual_settings()
        names = [field.name for field in dataclasses.fields(DatasetSettings)]
        flags = {name: getattr(self, name) for name in names}
        known |= {k: v for k, v in flags.items() if v is not None}
        if "image_size" not in known:
            raise ConfigError(
                f"{self.dataset!r} is no preset's name, so --image_size is "
                "needed: the side of the images in pixels, such as 64"
            )
        return DatasetSettings(**known)

    def usual_settings(self) -> dict:
        """Returns what flags that are left out stand for, as far as known."""
        if self.dataset not in preset_names():
            return {}
        return _settings_of(get_preset(self.dataset))

    def source_facts(self) -> dict:
        """Returns keywords of `pipeline.sources.find_source`, as plain data."""
        path, kind, usual_split = self.source, self.source_type, "train"
        if self.dataset in preset_names():
            facts = get_preset(self.dataset).dataset
            usual_split = facts.split
            if not path:
                # Never told from the path: a folder may have the same name.
                path, kind = facts.builder, kind or _kind_of(facts)
        if not path:
            raise ConfigError(
                "--source is needed: a folder, an archive, an LMDB environment "
                "or the name of a tensorflow-datasets builder"
            )
        return {
            "path": path,
            "kind": kind,
            "split": self.split,
            "tfds_data_dir": self.tfds_data_dir,
            "usual_split": usual_split,
        }


@dataclass(frozen=True)
class PipelineFlags(DatasetFlags):
    """What a pipeline from images to a served model depends on."""

    model_dir: Path = Path("models/transgan")
    """Folder of the served model, which holds its versions; made if missing."""
    preset: str | None = None
    """Networks and recipe; by default the one named as the dataset."""
    steps: int | None = None
    """Generator updates of the whole training."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of the configuration, such as training.batch_size=32."""
    max_fid: float | None = None
    """FID above which a model is not blessed."""
    max_fid_increase: float | None = 0.05
    """Share by which its FID may exceed that of the last blessed model; None
    for no such bound."""
    schema: Path | None = None
    """JSON file of what the images must be, see docs/pipeline.md."""
    max_drift: float | None = None
    """How far statistics may be from those of the last valid images."""
    keep: int | None = None
    """Number of pushed versions to keep; all by default."""
    data_licence: str | None = None
    """Licence of the training images, for the model card."""

    def check(self) -> None:
        """Raises `ConfigError` for flags that cannot be meant so."""
        super().check()
        rule = "must be at least 0 and finite, or None for no bound"
        for flag in ("max_fid", "max_fid_increase", "max_drift"):
            value = getattr(self, flag)
            known = value is None or 0 <= value < math.inf
            require(known, f"--{flag}", rule, value)
        rule = "must be at least 1"
        require(self.keep is None or self.keep >= 1, "--keep", rule, self.keep)
        self.settings()
        self.config()

    def usual_settings(self) -> dict:
        """Returns those of the dataset's preset, or else of the networks'."""
        networks = _settings_of(get_preset(self.preset_name()))
        # How another dataset is cut tells nothing of this one.
        del networks["crop"]
        return networks | super().usual_settings()

    def preset_name(self) -> str:
        """Returns which preset's networks and recipe are trained."""
        if self.preset is None and self.dataset not in preset_names():
            raise ConfigError(
                f"the dataset {self.dataset} needs --preset, which names the "
                f"networks: one of {', '.join(preset_names())}"
            )
        return self.preset or self.dataset

    def config(self) -> Config:
        """Returns the preset's configuration, with the flags' changes."""
        changes = [] if self.steps is None else [f"training.steps={self.steps}"]
        base = get_preset(self.preset_name()).config
        return base.override([*changes, *self.assignments])


def _settings_of(preset):
    return {
        "image_size": preset.image_size,
        "channels": preset.channels,
        "crop": preset.dataset.crop,
    }


def _kind_of(facts):
    """Returns the kind of a preset's usual source."""
    if not facts.builder:
        raise ConfigError(
            f"--source is needed: where you have {facts.usual_source}"
        )
    return "digits" if facts.builder == "digits" else "tfds"
