"""Trains a TransGAN, or goes on with a run: `python -m transgan_tf.train`."""

import os
import sys
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf import cli
from transgan_tf.checked import ConfigError
from transgan_tf.configs import Config
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.estimate import training_memory
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names


@dataclass(frozen=True)
class Arguments:
    """Train a TransGAN, or go on with a run by the same command.

    The embedded digits, for minutes:

    python -m transgan_tf.train --dataset=mnist --run_dir=runs/mnist

    Your own images, a folder data/cats/ of them:

    python -m transgan_tf.train --dataset=cats --preset=celeba_64
    """

    dataset: str = "mnist"
    """Name of a folder in data_dir, path of a folder of images, or mnist."""
    data_dir: Path = Path("data")
    """Folder of prepared datasets."""
    run_dir: Path | None = None
    """Where the run lives; runs/DATASET by default."""
    preset: str | None = None
    """Networks and recipe; by default the one named as the dataset."""
    config_file: Path | None = None
    """Configuration to take instead, such as another run's config.json."""
    steps: int | None = None
    """Generator updates of the whole run."""
    batch_size: int | None = None
    """Real images of one discriminator update."""
    precision: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the matrix multiplications."""
    rematerialize: bool = False
    """Make activations again for gradients: less memory, more time."""
    strategy: Literal["auto", "mirrored", "multi_worker", "none"] | None = None
    """How the step is spread over devices: auto takes all GPUs, multi_worker
    those of all processes that TF_CONFIG names."""
    seed: int | None = None
    """Seed of every random draw."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of the configuration, such as generator.latent_dim=128."""
    keep_best: bool = False
    """Keep the checkpoint of the lowest FID, too, as checkpoints/best."""
    dry_run: bool = False
    """Print the configuration, parameters and memory, and stop."""
    force: bool = False
    """Train even if memory is estimated to run out."""

    def config(self) -> Config:
        """Returns the preset's or the file's, with the flags' changes."""
        flags = ("steps", "batch_size", "precision", "strategy", "seed")
        changes = [
            f"training.{name}={getattr(self, name)}"
            for name in flags
            if getattr(self, name) is not None
        ]
        if self.rematerialize:
            changes.append("training.rematerialize=true")
        if self.keep_best:
            changes.append("evaluation.keep_best=true")
        return self._base().override([*changes, *self.assignments])

    def _base(self):
        if self.config_file is None:
            name = self.preset or self._preset_of_dataset()
            return get_preset(name).config
        if self.preset is not None:
            raise ConfigError("--preset and --config_file exclude each other")
        try:
            config = Config.from_json(self.config_file.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--config_file {self.config_file} cannot be read ({error}): "
                "give the config.json of a run"
            ) from None
        return replace(config, dataset="")

    def _preset_of_dataset(self):
        if self.dataset in preset_names():
            return self.dataset
        places = (self.data_dir / self.dataset, Path(self.dataset))
        if not any(place.is_dir() for place in places):
            from transgan_tf.data import DataError
            from transgan_tf.data import unknown_dataset

            raise DataError(unknown_dataset(self.dataset, self.data_dir))
        raise ConfigError(
            f"the dataset {self.dataset} needs --preset, which names the "
            f"networks: one of {', '.join(preset_names())}"
        )

    def run_folder(self) -> Path:
        return self.run_dir or Path("runs", self.name())

    def name(self) -> str:
        """Returns what the images are called, also for a path such as `..`.

        A link keeps its own name.
        """
        return Path(os.path.abspath(self.dataset)).name


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    config = arguments.config()
    if arguments.dry_run:
        print(describe(config))
        return cli.DONE
    from transgan_tf.data import load_dataset
    from transgan_tf.training import make_strategy
    from transgan_tf.training import train
    from transgan_tf.workers import Workers

    # First of all: workers must meet before anything of TensorFlow runs.
    strategy = make_strategy(config.training.strategy)
    workers = Workers(strategy)
    with workers.losing_none(), workers.together():
        images = load_dataset(arguments.dataset, arguments.data_dir, config)
    run_dir, name = arguments.run_folder(), arguments.name()
    return train(config, images, run_dir, name, strategy, arguments.force)


def describe(config: Config) -> str:
    """Returns what a dry run prints."""
    counts = (
        f"generator: {generator_parameters(config.generator):,} parameters\n"
        "discriminator: "
        f"{discriminator_parameters(config.discriminator):,} parameters\n"
    )
    memory = training_memory(config)
    compiled = "with" if config.training.jit else "without"
    return (
        f"{config.to_json()}{counts}"
        f"memory: about {memory.total / 2**30:.1f} GiB for a process without "
        f"GPU, or {memory.on_device / 2**30:.2f} GiB of one GPU (estimates "
        f"{compiled} XLA; the larger update was within 25 % of what XLA plans "
        "for every preset on a CPU, and the process of those that were "
        "measured; a GPU took a quarter to a third less for cifar10; of "
        "several devices each takes less)"
    )


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m transgan_tf.train", argv)


if __name__ == "__main__":
    sys.exit(main())
