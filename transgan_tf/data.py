"""Datasets by name: TFRecords, folders of images, the embedded digits.

Every mistake of a user is a `DataError` with one sentence.
"""

import logging
import os
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from transgan_tf.checked import nearest
from transgan_tf.configs import Config
from transgan_tf.images import FORMATS
from transgan_tf.images import SUFFIXES
from transgan_tf.images import embedded_digits
from transgan_tf.images import fit_image
from transgan_tf.manifest import MANIFEST
from transgan_tf.manifest import QUARANTINE
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names
from transgan_tf.stores import DataError
from transgan_tf.stores import RecordStore

# Above this the images belong into TFRecords, which are read from disk.
LARGEST_IN_MEMORY = 4 * 2**30
# Of a folder's images; up to it they are left out with a warning.
UNREADABLE_SHARE = 0.01
# How many unreadable files a message names.
NAMED = 3

_log = logging.getLogger(__name__)


# === Where images come from ===


def load_dataset(
    dataset: str, data_dir, config: Config
) -> np.ndarray | RecordStore:
    """Finds the images that a name stands for, in the size of a configuration.

    The folder `data_dir/dataset` comes first, then `dataset` as a path of a
    folder; `mnist` without a folder of its own is the embedded digits. A folder
    holds TFRecords that `pipeline.preprocess` made, or image files.

    Args:
        dataset: a preset's name, the name of a folder in `data_dir`, or a path.
        data_dir: folder of prepared datasets.
        config: gives the side and the channels of the images.

    Returns:
        `RecordStore`, or uint8 `(N, H, W, C)` of image files.

    Raises:
        DataError: if there is no such dataset, or its folder cannot be used.
    """
    size = (config.generator.image_size, config.generator.channels)
    folder = find_folder(dataset, data_dir)
    if folder is None:
        return _fitted_digits(*size)
    return open_folder(folder, *size)


def find_folder(dataset: str, data_dir) -> Path | None:
    """Returns the folder that a name stands for, see `load_dataset`.

    Returns:
        None for the embedded digits.

    Raises:
        DataError: if there is no such dataset.
    """
    is_name = Path(dataset).name == dataset not in ("", "..")
    if is_name and _is_folder(Path(data_dir, dataset)):
        return Path(data_dir, dataset)
    if dataset == "mnist":
        return None
    if dataset and (os.sep in dataset or _is_folder(dataset)):
        return Path(dataset)
    raise DataError(unknown_dataset(dataset, data_dir))


def open_folder(folder, image_size, channels):
    """Opens TFRecords that `pipeline.preprocess` made, or reads image files.

    Raises:
        DataError: the job has not ended, or see `load_folder`.
    """
    if Path(folder, MANIFEST).is_file():
        return RecordStore(folder)
    unfinished = ("*.tfrecord", ".work-*", QUARANTINE)
    if any(any(Path(folder).glob(name)) for name in unfinished):
        raise DataError(
            f"{folder} has no {MANIFEST}, so the job that was to make the "
            "dataset has not ended well: start `python -m pipeline.preprocess` "
            "again"
        )
    return load_folder(folder, image_size, channels)


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
        facts = get_preset(dataset).dataset
        if facts.builder:
            return (
                f"there is no dataset {dataset!r} in {data_dir}: prepare it by "
                f"`python -m pipeline.preprocess --dataset={dataset} "
                f"--output_dir={data_dir}`"
            )
        return (
            f"there is no dataset {dataset!r} in {data_dir}: prepare it by "
            f"`python -m pipeline.preprocess --dataset={dataset} "
            f"--source=PATH --output_dir={data_dir}`, where PATH holds "
            f"{facts.usual_source}"
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
            f"--image_size={shape[1]} --channels={shape[3]} --output_dir=data`"
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
