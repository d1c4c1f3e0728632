"""Images of seeds, and walks from seed to seed."""

import math
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from transgan_tf.network_configs import GeneratorConfig
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
        scores = max((scores, *config.attention_scores(stage)))
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
