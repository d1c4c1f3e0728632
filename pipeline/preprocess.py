"""Turns images into checked TFRecords: `python -m pipeline.preprocess`."""

import sys
from dataclasses import dataclass

import tyro

from pipeline.extras import told_if_missing
from pipeline.flags import DatasetFlags
from pipeline.quiet import import_beam_quietly
from transgan_tf import cli

# As tyro and Beam's parser exit of themselves.
BAD_USAGE = 2


@dataclass(frozen=True)
class Arguments(DatasetFlags):
    """Turn images into checked TFRecords, with Beam.

    Your own photographs, for `train --dataset=cats --preset=celeba_64`:

    python -m pipeline.preprocess --dataset=cats --source=photos/
    --image_size=64

    A preset's dataset, whose size and crop are known:

    python -m pipeline.preprocess --dataset=lsun_church
    --source=church_outdoor_train_lmdb

    Flags that are not listed here are Beam's, such as --runner=FlinkRunner.
    """

    output_dir: str = "data"
    """The dataset becomes a folder in it."""
    overwrite: bool = False
    """Replace what the dataset's folder holds."""


@told_if_missing()
def run(arguments: Arguments, flags: list[str]) -> int:
    """Does what the command line says; `flags` are Beam's."""
    arguments.check()
    settings = arguments.settings()
    import_beam_quietly()
    from pipeline.job import make_dataset
    from pipeline.options import UnknownFlag
    from pipeline.options import beam_options

    try:
        options = beam_options(flags, Arguments)
    except UnknownFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_USAGE
    return make_dataset(
        arguments.dataset,
        settings,
        arguments.source_facts(),
        arguments.output_dir,
        arguments.max_bad_fraction,
        options,
        arguments.overwrite,
    )


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
