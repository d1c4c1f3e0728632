"""How fast the job is: `python -m pipeline.benchmark`."""

import io
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import preprocess
from transgan_tf import cli
from transgan_tf.images import crop_square
from transgan_tf.images import resize

# How the job is run: a name, and Beam's flags.
WAYS = {
    "job, one worker": (
        "--direct_running_mode=in_memory",
        "--direct_num_workers=1",
    ),
    "job, a thread for each core": (
        "--direct_running_mode=multi_threading",
        f"--direct_num_workers={os.cpu_count()}",
    ),
    "job, a process for each core": (
        "--direct_running_mode=multi_processing",
        f"--direct_num_workers={os.cpu_count()}",
    ),
}


@dataclass(frozen=True)
class Arguments:
    """Compare the job with a plain Pillow loop over the same photographs.

    The photographs are JPEG files of about 500 px, crops of the two that
    scikit-learn ships; both make PNG images of them. The last dataset stays
    in data/photographs.

    python -m pipeline.benchmark --num_images=5000
    """

    num_images: int = 5000
    """Number of photographs."""
    image_size: int = 256
    """Side of the images that are made."""


def write_photographs(folder: Path, count: int) -> None:
    """Writes JPEG files of 480 to 520 px on each side."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(p) for p in load_sample_images().images]
    rng = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        width, height = rng.integers(300, 420, 2)
        left = rng.integers(photograph.width - width)
        top = rng.integers(photograph.height - height)
        image = photograph.crop((left, top, left + width, top + height))
        image = image.resize(tuple(rng.integers(480, 521, 2)))
        image.save(folder / f"{number:06d}.jpg", quality=90)


def plain_loop(folder: Path, image_size: int) -> float:
    """Decodes, resizes and encodes every file; returns the seconds."""
    start = time.perf_counter()
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image = resize(crop_square(image.convert("RGB")), image_size)
        image.save(io.BytesIO(), "PNG")
    return time.perf_counter() - start


def job(folder: Path, image_size: int, flags) -> float:
    """Runs the whole job; returns the seconds."""
    words = ["--dataset=photographs", f"--source={folder}", "--overwrite"]
    start = time.perf_counter()
    status = preprocess.main([*words, f"--image_size={image_size}", *flags])
    if status:
        raise SystemExit(status)
    return time.perf_counter() - start


def run(arguments: Arguments) -> int:
    """Prints images per second of each way, and the ratio to the loop."""
    count, size = arguments.num_images, arguments.image_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder, count)
        plain = count / plain_loop(folder, size)
        rows = [("plain Pillow loop", plain)]
        for way, flags in WAYS.items():
            rows.append((way, count / job(folder, size, flags)))
        # Again, since other work on the machine may have come between.
        again = count / plain_loop(folder, size)
        rows.append(("plain Pillow loop again", again))
    print(f"{count:,} photographs to {size} px, {os.cpu_count()} cores")
    for way, rate in rows:
        ratio = rate / (plain + again) * 2
        print(f"{way:30} {rate:7.1f} images/s {ratio:5.2f} of the loop")
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m pipeline.benchmark"
    return cli.run(Arguments, run, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
