"""Images of seeds: generated, arranged in grids, written to files."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from transgan_tf.checked import UserError
from transgan_tf.configs import GeneratorConfig
from transgan_tf.randomness import Draws
from transgan_tf.randomness import latents
from transgan_tf.randomness import root_seed
from transgan_tf.records import to_uint8

# What a batch may have: images, their pixels, and attention scores of one
# block (1 GiB of float32).
IMAGES_AT_ONCE = 64
PIXELS_AT_ONCE = 64 * 64**2
SCORES_AT_ONCE = 2**28


def generate(
    generator,
    seeds,
    truncation: float = 1.0,
    attention_noise: bool = False,
) -> np.ndarray:
    """Returns the uint8 images `(N, H, W, C)` of whole-number seeds `(N,)`.

    A seed's latent does not depend on the others. With `attention_noise` the
    images also depend on their places, as in the authors' sampling.
    """
    z = latents(np.asarray(seeds, "int64"), generator.config.latent_dim)
    return render(generator, z * truncation, attention_noise)


def render(generator, z, attention_noise: bool = False) -> np.ndarray:
    """Returns the uint8 images `(N, H, W, C)` of latents `(N, Z)`."""
    batch_size = images_at_once(generator.config)
    batches = []
    for start in range(0, len(z), batch_size):
        batch = z[start : start + batch_size]
        draws = None
        if attention_noise:
            draws = Draws(root_seed(start), size=len(batch))
        batches.append(to_uint8(generator(batch, draws=draws).numpy()))
    return np.concatenate(batches)


def images_at_once(config: GeneratorConfig) -> int:
    """Returns how many images to make at once, so that they fit into memory."""
    scores = 1
    for stage in config.stages:
        window = max(stage.block_windows(), default=0)
        scores = max(scores, stage.resolution**2 * config.heads * window**2)
    pixels = config.image_size**2
    fitting = min(PIXELS_AT_ONCE // pixels, SCORES_AT_ONCE // scores)
    return min(max(fitting, 1), IMAGES_AT_ONCE)


def interpolate(
    generator, seeds, frames: int, truncation: float = 1.0
) -> Iterator[np.ndarray]:
    """Yields the frames of a closed walk from seed to seed.

    Args:
        generator: `Generator`.
        seeds: at least two whole numbers.
        frames: frames from each seed to the next.
        truncation: in (0, 1].

    Yields:
        uint8 `(H, W, C)`.
    """
    stops = latents(np.asarray(seeds, "int64"), generator.config.latent_dim)
    stops = stops.numpy() * truncation
    for start, stop in zip(stops, np.roll(stops, -1, axis=0), strict=True):
        positions = np.arange(frames) / frames
        path = [slerp(start, stop, position) for position in positions]
        yield from render(generator, tf.constant(path, tf.float32))


def slerp(start: np.ndarray, stop: np.ndarray, position: float) -> np.ndarray:
    """Spherical interpolation of two latents `(Z,)`, position in [0, 1].

    Normal latents lie near a sphere; the straight line between two of them
    leaves it. The lengths are interpolated linearly.
    """
    lengths = np.linalg.norm(start), np.linalg.norm(stop)
    directions = start / lengths[0], stop / lengths[1]
    angle = math.acos(np.clip(directions[0] @ directions[1], -1.0, 1.0))
    length = (1 - position) * lengths[0] + position * lengths[1]
    if math.sin(angle) < 1e-6:
        return start * (1 - position) + stop * position
    first = math.sin((1 - position) * angle) * directions[0]
    second = math.sin(position * angle) * directions[1]
    return length * (first + second) / math.sin(angle)


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


def write_animation(path, frames: Iterator[np.ndarray], rate: int) -> None:
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
