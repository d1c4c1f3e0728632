"""Real photographs as sources: crops of those that two packages ship."""

import io
import struct
import tarfile
import zipfile
import zlib

import lmdb
import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_images

# A pagoda and a flower; a face, a cat, a cup, galaxies and a rocket: these five
# come inside scikit-image's wheel, its others would be downloaded.
PHOTOGRAPHS = [
    *load_sample_images().images,
    data.astronaut(),
    data.chelsea(),
    data.coffee(),
    data.hubble_deep_field(),
    data.rocket(),
]
ORIENTATION = 0x0112


def crop(number: int, height: int = 31, width: int = 45) -> np.ndarray:
    """Returns the crop of that number, a texture of its own.

    uint8 `(height, width, 3)`.
    """
    photograph = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    rng = np.random.default_rng(number)
    top = rng.integers(photograph.shape[0] - height)
    left = rng.integers(photograph.shape[1] - width)
    return photograph[top : top + height, left : left + width]


def encoded(pixels, format: str = "PNG", **options) -> bytes:
    """Returns an image file of pixels or of a Pillow image."""
    if isinstance(pixels, np.ndarray):
        pixels = Image.fromarray(pixels)
    file = io.BytesIO()
    pixels.save(file, format, **options)
    return file.getvalue()


def photographs(count, format="JPEG", first=0, **size):
    """Returns image files of crops by name."""
    suffix = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[format]
    numbers = range(first, first + count)
    return {
        f"{n:04d}.{suffix}": encoded(crop(n, **size), format) for n in numbers
    }


def sound_files() -> dict[str, bytes]:
    """Returns one file of every form that is read, by name."""
    image = [Image.fromarray(crop(number)) for number in range(20)]
    grey = np.asarray(image[9].convert("L")).astype(np.uint16) * 257
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return {
        "colour.png": encoded(image[0]),
        "photo.jpg": encoded(image[1], "JPEG", quality=90),
        "photo.JPEG": encoded(image[2], "JPEG", progressive=True),
        "web.webp": encoded(image[3], "WEBP"),
        "old.bmp": encoded(image[4], "BMP"),
        "palette.gif": encoded(image[5].quantize(32), "GIF"),
        "palette.png": encoded(image[6].quantize(32)),
        "alpha.png": encoded(image[7].convert("RGBA")),
        "grey.jpg": encoded(image[8].convert("L"), "JPEG"),
        "deep.png": encoded(grey),
        "print.jpg": encoded(image[10].convert("CMYK"), "JPEG"),
        "turned.jpg": encoded(image[11], "JPEG", exif=exif),
        "fit.png": encoded(crop(12, 16, 16)),
    }


def bomb(side: int = 60_000) -> bytes:
    """Returns a small PNG file that claims to be a square of that side."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"\0"), b"IEND": b""}
    file = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks.items():
        checksum = struct.pack(">I", zlib.crc32(name + content))
        file += struct.pack(">I", len(content)) + name + content + checksum
    return file


# Every kind of broken file, and what the quarantine says of it.
BROKEN = {
    "empty.png": (b"", "read", "empty"),
    "page.jpg": (b"<html>404</html>", "decode", "it is not a PNG"),
    "text.gif": (b"GIF but no more", "decode", "it is not a PNG"),
    "half.png": (encoded(crop(1))[:900], "decode", "truncated"),
    "half.jpg": (encoded(crop(2), "JPEG")[:700], "decode", "truncated"),
    "half.webp": (encoded(crop(3), "WEBP")[:60], "decode", "decoded"),
    "header.png": (encoded(crop(4))[:20], "decode", "decoded"),
    "bomb.png": (bomb(), "decode", "more than"),
    "large.png": (bomb(10_000), "decode", "more than"),
    "vector.png": (b"<svg></svg>", "decode", "it is not a PNG"),
    "icon.png": (
        encoded(Image.fromarray(crop(5)), "TIFF"),
        "decode",
        "it is not a PNG",
    ),
    "zeros.bmp": (bytes(5000), "decode", "it is not a PNG"),
}


def write_folder(folder, files: dict[str, bytes]):
    """Writes files below a folder; returns it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_zip(path, files: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path, files: dict[str, bytes], mode: str = "w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_lmdb(path, files: dict[str, bytes]):
    """Writes an environment as LSUN's are: keys to image files."""
    with lmdb.open(str(path), map_size=2**28) as environment:
        with environment.begin(write=True) as transaction:
            for name, content in files.items():
                transaction.put(name.encode(), content)
    return path
