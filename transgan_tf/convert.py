"""The authors' checkpoints, to and fro: `python -m transgan_tf.convert`."""

import sys
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.checkpoints import LATEST
from transgan_tf.presets import get_preset


@dataclass(frozen=True)
class Arguments:
    """Make a run of a checkpoint of the authors' PyTorch code, or the reverse.

    The file F of their CIFAR-10 networks to the folder R of a run, which is
    sampled, scored, exported and trained as any other:

    python -m transgan_tf.convert --checkpoint=F --dataset=cifar10 --run_dir=R

    A run's networks to a file that their networks load:

    python -m transgan_tf.convert --run_dir=R --to_pytorch=F.pth
    """

    run_dir: Path
    """Folder of the run, which is made, or read with --to_pytorch."""
    checkpoint: str | None = None
    """The authors' .pth file; with --to_pytorch, which checkpoint of the run,
    by default latest."""
    dataset: str | None = None
    """What the file's networks were trained on."""
    preset: str | None = None
    """The file's networks; by default the preset named as the dataset."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Describe networks other than the preset's, such as
    generator.latent_dim=512."""
    to_pytorch: Path | None = None
    """The .pth file to write the run's networks to."""

    def check(self) -> None:
        """Raises `UserError` for flags that do not go together."""
        if self.to_pytorch is None:
            if self.checkpoint is None or self.dataset is None:
                raise UserError(
                    "--checkpoint must name the authors' .pth file, and "
                    "--dataset what it was trained on, unless --to_pytorch "
                    "names a file to write"
                )
        elif self.dataset or self.preset or self.assignments:
            raise UserError(
                "--to_pytorch takes the networks as the run's config.json has "
                "them: leave --dataset, --preset and --set out"
            )


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    from transgan_tf import conversion

    arguments.check()
    if arguments.to_pytorch is not None:
        checkpoint = arguments.checkpoint or LATEST
        file = arguments.to_pytorch
        parts = conversion.to_pytorch(arguments.run_dir, checkpoint, file)
        print(f"{file}: {', '.join(parts)}")
        return cli.DONE
    preset = get_preset(arguments.preset or arguments.dataset)
    config = preset.config.override(arguments.assignments)
    config = replace(config, dataset=arguments.dataset)
    notes = conversion.from_pytorch(
        arguments.checkpoint, config, arguments.run_dir
    )
    for note in notes:
        print(f"note: {arguments.checkpoint}: {note}", file=sys.stderr)
    print(arguments.run_dir)
    return cli.DONE


def main(argv=None) -> int:
    return cli.run(
        Arguments,
        act,
        "python -m transgan_tf.convert",
        argv,
        needs_tensorflow=False,
    )


if __name__ == "__main__":
    sys.exit(main())
