"""Draws images of a trained generator: `python -m transgan_tf.sample`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transgan_tf import cli
from transgan_tf import pictures
from transgan_tf.checked import require


@dataclass(frozen=True)
class Arguments:
    """Draw images of a run's averaged generator.

    Image i is that of the seed number seed + i, whatever the number of images.

    A grid:

    python -m transgan_tf.sample --run_dir=runs/mnist --output=grid.png

    Single files:

    python -m transgan_tf.sample --run_dir=runs/mnist --output_dir=images

    A walk from seed to seed, R being the folder of a run:

    python -m transgan_tf.sample --run_dir=R --interpolate --output=walk.gif
    """

    run_dir: Path
    """Folder of the run."""
    num_images: int = 64
    """Number of images, or of seeds that an interpolation visits."""
    seed: int = 0
    """Seed of the first image."""
    output: Path | None = None
    """File of the grid (.png) or of the interpolation (.gif, .mp4)."""
    output_dir: Path | None = None
    """Folder for single PNG files, named by seed."""
    interpolate: bool = False
    """Walk from seed to seed and back to the first."""
    frames: int = 24
    """Frames of an interpolation from each seed to the next."""
    truncation: float = 1.0
    """Scale of the latents, in (0, 1]; smaller is safer and less varied."""
    checkpoint: str = "latest"
    """Which checkpoint of the run."""

    def check(self) -> None:
        """Raises `ConfigError` for values that cannot be used."""
        least = 2 if self.interpolate else 1
        rule = f"must be at least {least}"
        require(self.num_images >= least, "--num_images", rule, self.num_images)
        require(self.frames >= 1, "--frames", "must be at least 1", self.frames)
        most = 2**63 - self.num_images
        rule = f"must be in [0, {most})"
        require(0 <= self.seed < most, "--seed", rule, self.seed)
        inside = 0 < self.truncation <= 1
        require(inside, "--truncation", "must be in (0, 1]", self.truncation)
        if self.interpolate:
            pictures.check_animation(self.output, self.output_dir)
        else:
            pictures.check_grid(self.output)


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    from transgan_tf import sampling
    from transgan_tf.checkpoints import load_config
    from transgan_tf.checkpoints import load_generator

    arguments.check()
    generator = load_generator(arguments.run_dir, arguments.checkpoint)
    seeds = arguments.seed + np.arange(arguments.num_images)
    if arguments.interpolate:
        frames = sampling.interpolate(
            generator, seeds, arguments.frames, arguments.truncation
        )
        pictures.write_animation(arguments.output, frames)
        print(arguments.output)
        return cli.DONE
    images = sampling.generate(
        generator,
        seeds,
        arguments.truncation,
        load_config(arguments.run_dir).evaluation.attention_noise,
    )
    names = pictures.seed_names(seeds)
    outputs = arguments.output, arguments.output_dir
    print(*pictures.write_images(names, images, *outputs), sep="\n")
    return cli.DONE


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m transgan_tf.sample", argv)


if __name__ == "__main__":
    sys.exit(main())
