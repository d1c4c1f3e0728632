"""The command line of the client."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from serving.client import Client
from transgan_tf import cli
from transgan_tf import pictures
from transgan_tf.checked import UserError
from transgan_tf.checked import require
from transgan_tf.records import to_uint8


@dataclass(frozen=True)
class Arguments:
    """Draw images of a model that is served.

    A grid, its images those of python -m transgan_tf.sample:

    python -m serving.client --seed=0 --num_images=16 --output=grid.png

    Over gRPC:

    python -m serving.client --address=grpc://localhost:8500

    A walk between two seeds, and back:

    python -m serving.client --interpolate --seed=3 --stop=8 --output=walk.gif

    Whether the model can be asked:

    python -m serving.client --status
    """

    address: str = "http://localhost:8501"
    """Of the server: http://host:port for REST, grpc://host:port for gRPC."""
    model: str = "transgan"
    """Name of the model."""
    version: int | None = None
    """Number of its version; the newest by default."""
    num_images: int = 64
    """Number of images, or of seeds that an interpolation visits."""
    seed: int = 0
    """Seed of the first image."""
    truncation: float = 1.0
    """Scale of the latents, in (0, 1]; smaller is safer and less varied."""
    latents: Path | None = None
    """File (.npy) of latents (N, Z) to draw instead of seeds."""
    interpolate: bool = False
    """Walk from seed to seed and back to the first."""
    stop: int | None = None
    """Seed where an interpolation turns, instead of the seeds that follow."""
    frames: int = 24
    """Frames of an interpolation from each seed to the next."""
    output: Path | None = None
    """File of the grid (.png) or of the interpolation (.gif, .mp4)."""
    output_dir: Path | None = None
    """Folder for single PNG files, named by seed."""
    status: bool = False
    """Print the versions and their states; fails unless one is AVAILABLE."""
    timeout: float = 60.0
    """Seconds that a request may take, with its tries."""
    retries: int = 5
    """Further tries while the server cannot be reached or is too busy."""
    batch_size: int = 16
    """Most images of one request; presets of 256 px take 4."""

    def check(self) -> None:
        """Raises `ConfigError` for values that cannot be used."""
        least = 2 if self.interpolate and self.stop is None else 1
        for name, low in (
            ("num_images", least),
            ("frames", 1),
            ("retries", 0),
            ("batch_size", 1),
            ("version", 0),
        ):
            value = getattr(self, name)
            good = value is None or value >= low
            require(good, f"--{name}", f"must be at least {low}", value)
        require(self.timeout > 0, "--timeout", "must be above 0", self.timeout)
        most = 2**63 - self.num_images
        for name in ("seed", "stop"):
            value = getattr(self, name)
            good = value is None or 0 <= value < most
            require(good, f"--{name}", f"must be in [0, {most})", value)
        inside = 0 < self.truncation <= 1
        require(inside, "--truncation", "must be in (0, 1]", self.truncation)
        self._check_outputs()

    def _check_outputs(self):
        if self.interpolate:
            pictures.check_animation(self.output, self.output_dir)
        else:
            pictures.check_grid(self.output)
            rule = "goes with --interpolate alone"
            require(self.stop is None, "--stop", rule, self.stop)
        if self.latents is not None:
            rule = "does not go with --latents"
            require(not self.interpolate, "--interpolate", rule, True)
            whole = self.truncation == 1
            require(whole, "--truncation", rule, self.truncation)


def act(arguments: Arguments) -> int:
    """Does what the command line says; returns the exit status."""
    arguments.check()
    with Client(
        arguments.address,
        arguments.model,
        arguments.version,
        arguments.timeout,
        arguments.retries,
        arguments.batch_size,
    ) as client:
        if arguments.status:
            return _show_status(client)
        if arguments.interpolate:
            frames = _walk(client, arguments)
            pictures.write_animation(arguments.output, frames)
            print(arguments.output)
            return cli.DONE
        if arguments.latents is not None:
            names, images = _draw_latents(client, arguments.latents)
        else:
            seeds = arguments.seed + np.arange(arguments.num_images)
            names = pictures.seed_names(seeds)
            images = client.sample(seeds, arguments.truncation)
    outputs = arguments.output, arguments.output_dir
    print(*pictures.write_images(names, images, *outputs), sep="\n")
    return cli.DONE


def _show_status(client):
    versions = client.status()
    for known in versions:
        error = f" {known['error']}" if known["error"] else ""
        print(f"version {known['version']} {known['state']}{error}")
    available = any(known["state"] == "AVAILABLE" for known in versions)
    return cli.DONE if available else cli.FAILED


def _walk(client, arguments) -> Iterator[np.ndarray]:
    """Yields the frames of a closed walk, as `transgan_tf.sample` makes it."""
    seeds = [arguments.seed + i for i in range(arguments.num_images)]
    if arguments.stop is not None:
        seeds = [arguments.seed, arguments.stop]
    for start, stop in pairwise([*seeds, seeds[0]]):
        # The last frame is the first of the next part.
        frames = arguments.frames + 1
        part = client.interpolate(start, stop, frames, arguments.truncation)
        yield from part[:-1]


def _draw_latents(client, path):
    """Returns names and uint8 images of the latents in a file."""
    try:
        z = np.load(path, allow_pickle=False)
        z = z.astype("float32", casting="same_kind")
    except (ValueError, EOFError, TypeError, AttributeError):
        raise UserError(f"{path} is not a .npy file of floats") from None
    require(z.ndim == 2, f"the shape of {path}", "must be (N, Z)", z.shape)
    names = [f"latent-{i:09d}" for i in range(len(z))]
    return names, to_uint8(client.latents(z))


def main(argv=None) -> int:
    return cli.run(
        Arguments, act, "python -m serving.client", argv, needs_tensorflow=False
    )


if __name__ == "__main__":
    sys.exit(main())
