"""Images in grids and in files; imports no TensorFlow."""

import math
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from transgan_tf.checked import UserError
from transgan_tf.checked import require

FRAMES_PER_SECOND = 24
ANIMATIONS = (".gif", ".mp4")


def check_grid(output: Path | None) -> None:
    """Raises `ConfigError` unless a flag `--output` can be a grid's file."""
    known = output is None or output.suffix == ".png"
    rule = "must name a .png unless --interpolate is given"
    require(known, "--output", rule, str(output))


def check_animation(output: Path | None, output_dir: Path | None) -> None:
    """Raises `ConfigError` unless the flags name an animation's file alone."""
    suffix = output.suffix if output else None
    rule = "must name a .gif or .mp4 with --interpolate"
    require(suffix in ANIMATIONS, "--output", rule, output)
    rule = "does not go with --interpolate"
    require(output_dir is None, "--output_dir", rule, str(output_dir))


def write_images(
    names: Iterable[str],
    images: np.ndarray,
    output: Path | None,
    output_dir: Path | None,
) -> list[str]:
    """Writes a grid, single files, or both; a grid if neither is named.

    Args:
        names: of the single files, without their suffix.
        images: uint8 `(N, H, W, C)`.
        output: file of the grid.
        output_dir: folder of the single files.

    Returns:
        Lines that tell a user what was written.
    """
    lines = []
    if output_dir is not None:
        for name, image in zip(names, images, strict=True):
            write_png(output_dir / f"{name}.png", image)
        lines.append(f"{len(images)} images in {output_dir}")
    if output is not None or output_dir is None:
        output = output or Path("samples.png")
        write_png(output, grid(images))
        lines.append(str(output))
    return lines


def seed_names(seeds: Iterable[int]) -> list[str]:
    """Returns how the files of seeds are named."""
    return [f"seed-{seed:09d}" for seed in seeds]


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Tiles images row by row; what is left of the last row is black.

    Args:
        images: uint8 `(N, H, W, C)`.
        columns: images in a row; about square by default.

    Returns:
        uint8 `(rows * H, columns * W, C)`.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = np.zeros((rows * columns, height, width, channels), "uint8")
    tiles[:count] = images
    tiles = tiles.reshape(rows, columns, height, width, channels)
    tiles = tiles.transpose(0, 2, 1, 3, 4)  # (rows, H, columns, W, C)
    return tiles.reshape(rows * height, columns * width, channels)


def write_png(path, image: np.ndarray) -> None:
    """Writes a uint8 image `(H, W, 1 or 3)`, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    to_pillow(image).save(temporary, "PNG")
    temporary.replace(path)


def to_pillow(image: np.ndarray) -> Image.Image:
    """Returns a Pillow image of a uint8 array `(H, W, 1 or 3)`."""
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def write_animation(
    path, frames: Iterator[np.ndarray], rate: int = FRAMES_PER_SECOND
) -> None:
    """Writes frames `(H, W, C)` as `.gif` or `.mp4`, `rate` a second.

    Raises:
        UserError: for another suffix, or `.mp4` without its extra package.
    """
    path = Path(path)
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise UserError(f"an animation's name ends in .gif or .mp4, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix](path, frames, rate)


def _write_gif(path, frames, rate):
    images = [to_pillow(frame) for frame in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / rate),
        loop=0,
    )


def _write_mp4(path, frames, rate):
    try:
        import imageio_ffmpeg
    except ImportError:
        raise UserError(
            "writing .mp4 needs a package more: pip install "
            "'transgan-tf[video]', or write a .gif"
        ) from None
    writer = None
    for frame in frames:
        frame = np.broadcast_to(frame, (*frame.shape[:2], 3))
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            # Sides of 28 px are no multiple of the codec's blocks of 16.
            writer = imageio_ffmpeg.write_frames(
                str(path), size, fps=rate, macro_block_size=2
            )
            writer.send(None)
        writer.send(np.ascontiguousarray(frame))
    writer.close()
