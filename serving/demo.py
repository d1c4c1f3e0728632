"""Draws images by a server that it starts: `python -m serving.demo`."""

import sys
from dataclasses import dataclass
from pathlib import Path

from serving.client.__main__ import main as draw
from serving.local import served
from serving.versions import find_versions
from serving.versions import refuse_version
from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.pictures import check_grid


@dataclass(frozen=True)
class Arguments:
    """Start the embedded server, draw a grid of images by it, and stop it.

    python -m serving.demo --model_dir=models/transgan --output=demo.png
    """

    model_dir: Path
    """Folder of the model, which holds its versions."""
    output: Path = Path("demo.png")
    """File of the grid (.png)."""
    num_images: int = 64
    """Number of images; those of the seeds 0, 1, ..."""


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    check_grid(arguments.output)
    refuse_version(arguments.model_dir)
    if not find_versions(arguments.model_dir):
        raise UserError(
            f"{arguments.model_dir} has no version: push one by `python -m "
            f"pipeline.run --model_dir={arguments.model_dir}`"
        )
    with served(arguments.model_dir) as (rest, _):
        return draw(
            [
                f"--address={rest}",
                f"--model={arguments.model_dir.resolve().name}",
                f"--num_images={arguments.num_images}",
                f"--output={arguments.output}",
            ]
        )


def main(argv=None) -> int:
    command = "python -m serving.demo"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
