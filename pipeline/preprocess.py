"""Turns images into checked TFRecords: `python -m pipeline.preprocess`."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from pipeline.extras import told_if_missing
from pipeline.quiet import import_beam_quietly
from transgan_tf import cli
from transgan_tf.checked import ConfigError
from transgan_tf.manifest import DatasetSettings
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

# As tyro and Beam's parser exit of themselves.
BAD_USAGE = 2


@dataclass(frozen=True)
class Arguments:
    """Turn images into checked TFRecords, with Beam.

    Your own photographs, for `train --dataset=cats --preset=celeba_64`:

    python -m pipeline.preprocess --dataset=cats --source=photos/
    --image_size=64

    A preset's dataset, whose size and crop are known:

    python -m pipeline.preprocess --dataset=lsun_church
    --source=church_outdoor_train_lmdb

    Flags that are not listed here are Beam's, such as --runner=FlinkRunner.
    """

    dataset: str
    """A preset's name, or a name of your own."""
    source: str | None = None
    """Folder, .zip, .tar, .tar.gz, LSUN's *_lmdb, a tensorflow-datasets
    builder such as cifar10, or digits; gs:// and the like work too. A preset
    may have a usual one."""
    output_dir: str = "data"
    """The dataset becomes a folder in it."""
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
    overwrite: bool = False
    """Replace what the dataset's folder holds."""

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
        known = {}
        if self.dataset in preset_names():
            preset = get_preset(self.dataset)
            known = {
                "image_size": preset.image_size,
                "channels": preset.channels,
                "crop": preset.dataset.crop,
            }
        names = [field.name for field in dataclasses.fields(DatasetSettings)]
        flags = {name: getattr(self, name) for name in names}
        known |= {k: v for k, v in flags.items() if v is not None}
        if "image_size" not in known:
            raise ConfigError(
                f"{self.dataset!r} is no preset's name, so --image_size is "
                "needed: the side of the images in pixels, such as 64"
            )
        return DatasetSettings(**known)

    def find_source(self):
        """Returns the source that is given, or the preset's usual one."""
        from pipeline.sources import find_source
        from pipeline.sources import kind_of

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
        kind = kind or kind_of(path)
        self._check_builders_flags(kind)
        split = self.split or usual_split
        return find_source(path, kind, split, self.tfds_data_dir)

    def _check_builders_flags(self, kind):
        if kind == "tfds":
            return
        for flag in ("split", "tfds_data_dir"):
            if getattr(self, flag) is not None:
                raise ConfigError(
                    f"--{flag} is of tensorflow-datasets' builders, and the "
                    f"source is a {kind}: leave it out"
                )


def _kind_of(facts):
    """Returns the kind of a preset's usual source."""
    if not facts.builder:
        raise ConfigError(
            f"--source is needed: where you have {facts.usual_source}"
        )
    return "digits" if facts.builder == "digits" else "tfds"


@told_if_missing()
def run(arguments: Arguments, flags: list[str]) -> int:
    """Does what the command line says; `flags` are Beam's."""
    arguments.check()
    settings = arguments.settings()
    import_beam_quietly()
    from apache_beam.io.filesystems import FileSystems

    from pipeline.job import make_plan
    from pipeline.job import prepare
    from pipeline.options import UnknownFlag
    from pipeline.options import beam_options

    try:
        options = beam_options(flags, Arguments)
    except UnknownFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE
    # Remote file systems take theirs before there is a pipeline.
    FileSystems.set_options(options)
    source = arguments.find_source()
    plan = make_plan(
        arguments.dataset,
        settings,
        source,
        arguments.output_dir,
        arguments.max_bad_fraction,
    )
    return prepare(plan, source, options, arguments.overwrite)


def main(argv=None) -> int:
    arguments, flags = tyro.cli(
        Arguments,
        args=cli.split_flags(argv),
        prog="python -m pipeline.preprocess",
        use_underscores=True,
        return_unknown_args=True,
    )
    return cli.answer(lambda: run(arguments, flags))


if __name__ == "__main__":
    sys.exit(main())
