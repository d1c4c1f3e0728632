"""Real images: where they come from, and the stream that training takes.

The embedded digits, folders of images and arrays all become one uint8 array
`(N, H, W, C)` in memory; `step_batches` makes the batches of it. Every mistake
of a user is a `DataError` with one sentence.
"""

import logging
import os
import stat
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from transgan_tf.checked import UserError
from transgan_tf.checked import nearest
from transgan_tf.configs import Config
from transgan_tf.configs import TrainingConfig
from transgan_tf.images import FORMATS
from transgan_tf.images import SUFFIXES
from transgan_tf.images import embedded_digits
from transgan_tf.images import fit_image
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names
from transgan_tf.randomness import Draws
from transgan_tf.randomness import fold_in
from transgan_tf.randomness import root_seed
from transgan_tf.records import to_unit_range

# Above this the images belong into TFRecords, which are read from disk.
LARGEST_IN_MEMORY = 4 * 2**30
# Of a folder's images; up to it they are left out with a warning.
UNREADABLE_SHARE = 0.01
# How many unreadable files a message names.
NAMED = 3

# Keys of the stream's draws. The training step folds step numbers into the
# same root, and no step is negative.
_STREAM = -1
_ORDER, _FLIPS = 0, 1
# The fewest at which we found no correlation between the orders of neighbouring
# epochs; tf.random.experimental.index_shuffle uses 4, where there is some.
_SHUFFLE_ROUNDS = 8

_log = logging.getLogger(__name__)


class DataError(UserError):
    """Images that cannot be used; its text is one sentence."""


# === Where images come from ===


def load_dataset(dataset: str, data_dir, config: Config) -> np.ndarray:
    """Loads the images that a name stands for, in the size of a configuration.

    The folder `data_dir/dataset` comes first, then `dataset` as a path of a
    folder; `mnist` without a folder of its own is the embedded digits.

    Args:
        dataset: a preset's name, the name of a folder in `data_dir`, or a path.
        data_dir: folder of prepared datasets.
        config: gives the side and the channels of the images.

    Returns:
        uint8 `(N, H, W, C)`.

    Raises:
        DataError: if there is no such dataset, or its folder cannot be used.
    """
    size = (config.generator.image_size, config.generator.channels)
    is_name = Path(dataset).name == dataset not in ("", "..")
    if is_name and _is_folder(Path(data_dir, dataset)):
        return load_folder(Path(data_dir, dataset), *size)
    if dataset == "mnist":
        return _fitted_digits(*size)
    if dataset and (os.sep in dataset or _is_folder(dataset)):
        return load_folder(dataset, *size)
    raise DataError(unknown_dataset(dataset, data_dir))


def _is_folder(path):
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError as error:
        raise DataError(_no_permission(error)) from None
    except (OSError, ValueError):
        return False


def unknown_dataset(dataset: str, data_dir) -> str:
    """Returns the sentence about a dataset that is not there."""
    if dataset in preset_names():
        source = get_preset(dataset).dataset.usual_source
        return (
            f"there is no dataset {dataset!r} in {data_dir}: prepare it by "
            f"`python -m pipeline.preprocess --dataset={dataset} "
            f"--source=PATH --output_dir={data_dir}`, where PATH holds {source}"
        )
    known = [*preset_names(), *_folders_in(data_dir)]
    return (
        f"{dataset!r} is neither a preset's name nor a folder, here or in "
        f"{data_dir}; a folder of images works too (--dataset=photos/ "
        f"--preset=celeba_64){nearest(dataset, known)}"
    )


def _folders_in(data_dir):
    try:
        return [path.name for path in Path(data_dir).iterdir() if path.is_dir()]
    except OSError:
        return []


def _fitted_digits(image_size, channels):
    digits, _ = embedded_digits()
    if digits.shape[2:] == (image_size, channels):
        return digits
    images = (Image.fromarray(digit[..., 0]) for digit in digits)
    return np.stack([fit_image(i, image_size, channels) for i in images])


def fingerprint(name: str, images: np.ndarray) -> str:
    """Returns what tells a dataset from another: name, number, checksum."""
    checksum = zlib.crc32(np.ascontiguousarray(images))
    return f"{name}, {len(images)} images, CRC {checksum:08x}"


def from_array(images) -> np.ndarray:
    """Checks a user's own images.

    Args:
        images: uint8 `(N, S, S, C)` in [0, 255], C 1 or 3.

    Returns:
        The same as a NumPy array.

    Raises:
        DataError: if they are not that.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise DataError(f"images must be uint8, got {images.dtype}")
    shape = images.shape
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] not in (1, 3):
        raise DataError(
            "images must be square with 1 or 3 channels, of shape "
            f"(N, S, S, C), got {shape}"
        )
    if not images.size:
        raise DataError(f"there must be at least one image, got shape {shape}")
    return images


def check_size(images: np.ndarray, config: Config) -> None:
    """Raises `DataError` unless images fit a configuration's networks."""
    size, channels = config.generator.image_size, config.generator.channels
    if images.shape[1:] != (size, size, channels):
        raise DataError(
            f"images must have the shape (N, {size}, {size}, {channels}), got "
            f"{images.shape}"
        )


# === Folders of images ===


def load_folder(folder, image_size: int, channels: int) -> np.ndarray:
    """Reads all images in a folder and its subfolders, see `fit_image`.

    Files are told by their suffix (PNG, JPEG, WebP, BMP, GIF) and sorted by
    path, so that the order is the same everywhere; hidden files and folders
    are ignored, links to folders not followed. Up to 1 % unreadable files are
    left out with a warning.

    Args:
        folder: path.
        image_size: side of the square result in pixels.
        channels: 1 or 3.

    Returns:
        uint8 `(N, image_size, image_size, channels)`.

    Raises:
        DataError: if the folder is missing, empty or closed, more files than
            that are unreadable, or the result exceeds 4 GiB.
    """
    paths = find_images(folder)
    shape = (len(paths), image_size, image_size, channels)
    _check_memory(folder, shape)
    images = np.empty(shape, "uint8")

    def read(index):
        try:
            with Image.open(paths[index], formats=FORMATS) as image:
                images[index] = fit_image(image, image_size, channels)
        except Exception:
            # A broken file makes Pillow's decoders raise nearly anything.
            return False
        return True

    with warnings.catch_warnings():
        # Pillow only warns of an image of up to twice its limit of pixels.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            readable = np.array(list(threads.map(read, range(len(paths)))))
    if readable.all():
        return images
    _check_unreadable(folder, paths, readable)
    return images[readable]


def find_images(folder) -> list[Path]:
    """Returns the image files in a folder and its subfolders, sorted.

    Raises:
        DataError: if there are none, or a folder cannot be listed.
    """
    folder = Path(folder)
    paths = []
    for parent, children, names in os.walk(folder, onerror=_refuse_folder):
        children[:] = [name for name in children if not name.startswith(".")]
        paths += [
            Path(parent, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not paths:
        raise DataError(
            f"the folder {folder} holds no PNG, JPEG, WebP, BMP or GIF file: "
            "name the folder that the images are in"
        )
    return sorted(paths, key=lambda path: path.relative_to(folder).parts)


def _refuse_folder(error):
    """Raises the sentence for a folder that `os.walk` could not list."""
    path = error.filename
    if isinstance(error, FileNotFoundError):
        sentence = f"there is no folder {path}: check the path"
    elif isinstance(error, NotADirectoryError):
        sentence = f"{path} is a file: name the folder that the images are in"
    else:
        sentence = _no_permission(error)
    raise DataError(sentence) from None


def _no_permission(error):
    return (
        f"{error.filename} cannot be read ({error.strerror}): give yourself "
        "permission or name another folder"
    )


def _check_memory(folder, shape):
    size = int(np.prod(shape, dtype="int64"))
    if size > LARGEST_IN_MEMORY:
        raise DataError(
            f"the {shape[0]:,} images in {folder} would take "
            f"{size / 2**30:.1f} GiB of memory and more than "
            f"{LARGEST_IN_MEMORY / 2**30:.0f} are not read: make TFRecords by "
            f"`python -m pipeline.preprocess --dataset=NAME --source={folder} "
            "--output_dir=data`"
        )


def _check_unreadable(folder, paths, readable):
    """Warns of unreadable files, or raises if there are too many."""
    bad = [str(paths[index]) for index in np.flatnonzero(~readable)]
    more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
    sentence = (
        f"{len(bad)} of {len(paths)} image files in {folder} cannot be read "
        f"({', '.join(bad[:NAMED])}{more})"
    )
    if len(bad) > UNREADABLE_SHARE * len(paths):
        raise DataError(f"{sentence}: repair or remove them")
    _log.warning("%s and are left out", sentence)


# === The stream of batches ===


def step_batches(
    images, training: TrainingConfig, start_step: int = 0
) -> tf.data.Dataset:
    """Makes the batches of the steps `start_step` to `training.steps`.

    Every epoch takes the images in an order of its own, and batches run on
    over its end, so that a small array is fine. A batch depends on the seed,
    the step and the images alone: a run may be continued at any step.

    The array is read where it lies: as a tensor that the dataset captures it
    would be held twice (measured).

    Args:
        images: uint8 `(N, S, S, C)`.
        training: gives seed, steps, images of a step, and flips.
        start_step: the first step, counted from 0.

    Returns:
        Dataset of float32 `(images_per_step, S, S, C)` in [-1, 1].

    Raises:
        DataError: if `from_array` refuses the images.
    """
    images = from_array(images)
    size = training.images_per_step
    seed = fold_in(root_seed(training.seed), _STREAM)

    def take(places, mirrored):
        pixels = images[places]  # (size, S, S, C), a copy
        pixels[mirrored] = pixels[mirrored, :, ::-1]
        return pixels

    def batch(step):
        places = _places(step, size, len(images), fold_in(seed, _ORDER))
        mirrored = tf.zeros((size,), tf.bool)
        if training.horizontal_flip:
            key = fold_in(fold_in(seed, _FLIPS), step)
            mirrored = Draws(key, size).uniform() < 0.5
        pixels = tf.numpy_function(
            take, (places, mirrored), tf.uint8, stateful=False
        )
        pixels = tf.ensure_shape(pixels, (size, *images.shape[1:]))
        return to_unit_range(pixels)

    steps = tf.data.Dataset.range(start_step, training.steps)
    return steps.map(batch).prefetch(2)


def _places(step, size, count, seed):
    """Returns the `(size,)` places in the array of a step's images.

    The image at position p of the endless stream is image p % count of epoch
    p // count, whose order is keyed by seed and epoch. This is the operation
    below tf.random.experimental.index_shuffle, which cannot take one seed for
    each index (TensorFlow 2.21).
    """
    positions = step * size + tf.range(size, dtype=tf.int64)
    epochs = tf.cast(positions // count, tf.int32)[:, None]  # (size, 1)
    keys = tf.concat([tf.tile(seed[None], (size, 1)), epochs], axis=1)
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % count,
        seed=keys,
        max_index=tf.constant(count - 1, tf.int64),
        rounds=_SHUFFLE_ROUNDS,
    )
