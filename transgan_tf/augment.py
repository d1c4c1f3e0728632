"""Differentiable augmentation (Zhao et al. 2020), with the authors' numbers.

Each operation is a pure function of images `(B, H, W, C)` and `Draws`,
differentiable twice with respect to the images. Brightness, saturation,
contrast, shifts and the places of cuts are drawn for each sample; whether a cut
happens, and its size, once for the global batch.

Reference:
    https://arxiv.org/abs/2006.10738; the authors' `models_search/diff_aug.py`,
    whose numbers differ (translation 0.2 instead of 0.125, cuts at random).
"""

import tensorflow as tf

from transgan_tf.checked import require_choice

TRANSLATION_RATIO = 0.2
CUTOUT_RATIO = 0.5
CUT_PROBABILITY = 0.3
ERASE_RATIOS = (0.2, 0.7)
STL_ERASE_PIXELS = 20


def random_brightness(images, draws):
    """Adds one number in [-0.5, 0.5) to each image."""
    return images + _per_image(draws, -0.5, 0.5)


def random_saturation(images, draws):
    """Scales the distance to a pixel's mean over channels by [0, 2)."""
    mean = tf.reduce_mean(images, axis=3, keepdims=True)
    return (images - mean) * _per_image(draws, 0.0, 2.0) + mean


def random_contrast(images, draws):
    """Scales the distance to an image's mean by [0.5, 1.5)."""
    mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * _per_image(draws, 0.5, 1.5) + mean


def _per_image(draws, low, high):
    return draws.uniform(1, 1, 1, low=low, high=high)  # (B, 1, 1, 1)


def random_color(images, draws):
    """Brightness, then saturation, then contrast."""
    images = random_brightness(images, draws.fold_in(0))
    images = random_saturation(images, draws.fold_in(1))
    return random_contrast(images, draws.fold_in(2))


def random_translation(images, draws):
    """Shifts each image by up to a fifth of its sides; what is bare is 0."""
    _, height, width, _ = images.shape
    most_y = int(height * TRANSLATION_RATIO + 0.5)
    most_x = int(width * TRANSLATION_RATIO + 0.5)
    dy = draws.fold_in(0).integers(-most_y, most_y + 1)
    dx = draws.fold_in(1).integers(-most_x, most_x + 1)
    return shift(images, dy, dx)


@tf.custom_gradient
def shift(images, dy, dx):
    """Returns `out[b, y, x] = images[b, y + dy[b], x + dx[b]]`, else 0.

    The gradient of a shift is the shift back. Said so here, it is two gathers
    that can be differentiated again, where a gather's own is a scatter.

    Args:
        images: `(B, H, W, C)`.
        dy, dx: `(B,)` int32.
    """

    def gradient(upstream):
        return shift(upstream, -dy, -dx), None, None

    shifted = _shift_axis(images, dy, axis=1)
    return _shift_axis(shifted, dx, axis=2), gradient


def _shift_axis(images, offsets, axis):
    size = images.shape[axis]
    places = tf.range(size)[None, :] + offsets[:, None]  # (B, size)
    inside = (places >= 0) & (places < size)
    places = tf.clip_by_value(places, 0, size - 1)
    shape = [-1, 1, 1, 1]
    shape[axis] = size
    mask = tf.cast(tf.reshape(inside, shape), images.dtype)
    return tf.gather(images, places, axis=axis, batch_dims=1) * mask


def random_cutout(images, draws):
    """Sometimes blanks a box of half the sides in each image."""
    _, height, width, _ = images.shape
    size_y = int(height * CUTOUT_RATIO + 0.5)
    size_x = int(width * CUTOUT_RATIO + 0.5)
    return _cut(images, draws, size_y, size_x)


def random_erase_ratio(images, draws):
    """Sometimes blanks a box of a fifth to seven tenths of the sides."""
    _, height, width, _ = images.shape
    sizes = []
    for purpose, side in enumerate((height, width)):
        low, high = (int(side * ratio) for ratio in ERASE_RATIOS)
        source = draws.fold_in(10 + purpose)
        sizes.append(source.shared_integer(low, high + 1))
    return _cut(images, draws, *sizes)


def random_stl_erase_ratio(images, draws):
    """Sometimes blanks a box of 20 to 20 + half the side pixels."""
    _, height, width, _ = images.shape
    sizes = []
    for purpose, side in enumerate((height, width)):
        low, high = STL_ERASE_PIXELS, side // 2 + STL_ERASE_PIXELS
        source = draws.fold_in(10 + purpose)
        sizes.append(source.shared_integer(low, high + 1))
    return _cut(images, draws, *sizes)


def _cut(images, draws, size_y, size_x):
    """Blanks a box about a random place of each image, or none of them."""
    _, height, width, _ = images.shape
    happens = draws.fold_in(0).shared_uniform() < CUT_PROBABILITY
    rows = _covered(draws.fold_in(1), height, size_y)  # (B, H)
    columns = _covered(draws.fold_in(2), width, size_x)  # (B, W)
    box = rows[:, :, None] & columns[:, None, :] & happens  # (B, H, W)
    return images * tf.cast(~box, images.dtype)[..., None]


def _covered(draws, side, size):
    """Returns whether each place of a side lies within a random span."""
    centre = draws.integers(0, side + 1 - size % 2)
    first = (centre - size // 2)[:, None]
    places = tf.range(side)[None, :]
    return (places >= first) & (places < first + size)  # (B, side)


OPERATIONS = {
    "translation": random_translation,
    "cutout": random_cutout,
    "color": random_color,
    "erase_ratio": random_erase_ratio,
    "stl_erase_ratio": random_stl_erase_ratio,
}


class DiffAugment:
    """A policy of differentiable augmentation.

    Args:
        policy: names of operations in their order, separated by commas, such
            as `"translation,cutout,color"`; empty for none.

    Example:

    ```python
    augment = DiffAugment("translation,color")
    images = augment(images, Draws(root_seed(0), size=16))
    ```
    """

    def __init__(self, policy: str = ""):
        self.policy = policy
        self.names = [name for name in policy.split(",") if name]
        for name in self.names:
            require_choice("augmentation", name, OPERATIONS)

    def __call__(self, images, draws):
        """Returns augmented images `(B, H, W, C)`; `draws` is a `Draws`."""
        for number, name in enumerate(self.names):
            images = OPERATIONS[name](images, draws.fold_in(number))
        return images
