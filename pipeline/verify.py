"""Checks a dataset: `python -m pipeline.verify --dataset_dir=data/NAME`."""

import sys
from dataclasses import dataclass

from pipeline.extras import told_if_missing
from pipeline.quiet import import_beam_quietly
from transgan_tf import cli


@dataclass(frozen=True)
class Arguments:
    """Check a dataset against its manifest, file by file, record by record.

    python -m pipeline.verify --dataset_dir=data/mnist
    """

    dataset_dir: str
    """Folder of the dataset, local or of any file system that Beam knows."""
    fast: bool = False
    """Check files, sizes, hashes and numbers of records alone."""


@told_if_missing()
def run(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    import_beam_quietly()
    from pipeline.check import check_dataset

    for line in check_dataset(arguments.dataset_dir, arguments.fast):
        print(line)
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m pipeline.verify"
    return cli.run(Arguments, run, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
