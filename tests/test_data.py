"""Images from digits, arrays and folders, and the stream of batches."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from transgan_tf import data
from transgan_tf.images import embedded_digits
from transgan_tf.presets import get_preset

NOBODY = 65534


def picture(height, width, channels=3, seed=0):
    """Returns random pixels, `(height, width, channels)`."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.asarray(pixels, np.uint8)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    Image.fromarray(pixels).save(path, **options)


def fill(folder, count, broken=0):
    """Writes `count` images of one pixel, the last of them broken."""
    for index in range(count):
        save(folder / f"{index:03}.png", [[[index, 0, 0]]])
    for index in range(count - broken, count):
        (folder / f"{index:03}.png").write_bytes(b"no image")


def refusal(function, *arguments):
    """Returns the text of the `DataError`, which is one sentence."""
    with pytest.raises(data.DataError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def closed_folder():
    """A folder with an image that may not be read, not even by root."""
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o755)
    folder = parent / "closed"
    save(folder / "a.png", picture(3, 3))
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(user)
    folder.chmod(0o755)
    shutil.rmtree(parent)


# === Folders ===


def test_every_format_is_read(tmp_path):
    pixels = picture(5, 5)
    for name in ("a.png", "b.BMP", "c.webp", "d.jpg", "e.JPEG"):
        options = {"lossless": True} if "webp" in name else {"quality": 95}
        save(tmp_path / name, pixels, **options)
    images = data.load_folder(tmp_path, 5, 3)
    assert images.shape == (5, 5, 5, 3)
    assert images.dtype == np.uint8
    for exact in images[:3]:
        np.testing.assert_array_equal(exact, pixels)
    assert np.abs(images[3].mean() - pixels.mean()) < 5


def test_sizes_differ_and_the_order_is_by_path(tmp_path):
    sizes = {"b.png": (7, 5), "a/z.png": (5, 11), "a-1.png": (13, 3)}
    for value, (name, size) in enumerate(sizes.items()):
        save(tmp_path / name, np.full((*size, 3), value))
    images = data.load_folder(tmp_path, 5, 3)
    assert images.shape == (3, 5, 5, 3)
    assert images[:, 0, 0, 0].tolist() == [1, 2, 0]


def test_hidden_and_other_files_are_ignored(tmp_path):
    for name in ("a.png", ".b.png", ".c/d.png", "e/.f/g.png"):
        save(tmp_path / name, picture(3, 3))
    (tmp_path / "notes.txt").write_text("no image")
    assert data.find_images(tmp_path) == [tmp_path / "a.png"]


def test_few_unreadable_files_are_left_out(tmp_path, caplog):
    fill(tmp_path, 200, broken=2)
    with caplog.at_level(logging.WARNING):
        images = data.load_folder(tmp_path, 1, 3)
    assert images[:, 0, 0, 0].tolist() == list(range(198))
    (record,) = caplog.records
    assert record.getMessage() == (
        f"2 of 200 image files in {tmp_path} cannot be read "
        f"({tmp_path}/198.png, {tmp_path}/199.png) and are left out"
    )


def test_many_unreadable_files_are_refused(tmp_path):
    fill(tmp_path, 200, broken=5)
    assert refusal(data.load_folder, tmp_path, 1, 3) == (
        f"5 of 200 image files in {tmp_path} cannot be read "
        f"({tmp_path}/195.png, {tmp_path}/196.png, {tmp_path}/197.png and 2 "
        "more): repair or remove them"
    )


def test_none_readable(tmp_path):
    (tmp_path / "empty.png").touch()
    save(tmp_path / "whole.jpg", picture(64, 64))
    half = (tmp_path / "whole.jpg").read_bytes()[:900]
    (tmp_path / "whole.jpg").write_bytes(half)
    message = refusal(data.load_folder, tmp_path, 8, 3)
    assert message.startswith("2 of 2 image files")


@pytest.mark.parametrize("width", [15, 30])
def test_decompression_bombs_are_unreadable(tmp_path, monkeypatch, width):
    save(tmp_path / "a.png", picture(10, width))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    message = refusal(data.load_folder, tmp_path, 8, 3)
    assert message.startswith("1 of 1 image files")


def test_missing_folder(tmp_path):
    folder = tmp_path / "photos"
    message = refusal(data.load_folder, folder, 8, 3)
    assert message == f"there is no folder {folder}: check the path"


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "photos.zip"
    path.touch()
    message = refusal(data.load_folder, path, 8, 3)
    assert message.startswith(f"{path} is a file: name the folder")


def test_empty_folder(tmp_path):
    (tmp_path / "notes.txt").touch()
    message = refusal(data.load_folder, tmp_path, 8, 3)
    assert message.startswith(f"the folder {tmp_path} holds no PNG, JPEG")


def test_closed_folder(closed_folder):
    message = refusal(data.load_folder, closed_folder, 8, 3)
    assert message == (
        f"{closed_folder} cannot be read (Permission denied): give yourself "
        "permission or name another folder"
    )


def test_closed_folder_below(closed_folder):
    message = refusal(data.load_folder, closed_folder.parent, 8, 3)
    assert message.startswith(f"{closed_folder} cannot be read")


def test_closed_data_dir_is_not_a_missing_one(closed_folder):
    config = get_preset("mnist").config
    message = refusal(data.load_dataset, "mnist", closed_folder, config)
    assert message.startswith(f"{closed_folder}/mnist cannot be read")


def test_too_large_for_memory(tmp_path, monkeypatch):
    fill(tmp_path, 3)
    monkeypatch.setattr(data, "LARGEST_IN_MEMORY", 3 * 64 * 64 * 3)
    assert len(data.load_folder(tmp_path, 64, 3)) == 3
    monkeypatch.setattr(data, "LARGEST_IN_MEMORY", 3 * 64 * 64 * 3 - 1)
    message = refusal(data.load_folder, tmp_path, 64, 3)
    assert message.startswith(f"the 3 images in {tmp_path} would take 0.0 GiB")
    assert message.endswith(
        f"`python -m pipeline.preprocess --dataset=NAME --source={tmp_path} "
        "--image_size=64 --channels=3 --output_dir=data`"
    )


# === Datasets by name ===

MNIST = get_preset("mnist").config
CIFAR10 = get_preset("cifar10").config


def test_mnist_is_embedded(tmp_path):
    images = data.load_dataset("mnist", tmp_path / "data", MNIST)
    np.testing.assert_array_equal(images, embedded_digits()[0])


def test_digits_take_the_size_of_the_configuration(tmp_path):
    images = data.load_dataset("mnist", tmp_path, CIFAR10)
    assert images.shape == (5000, 32, 32, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_a_folder_comes_before_the_embedded_digits(tmp_path):
    save(tmp_path / "mnist" / "a.png", picture(28, 28, 1))
    assert data.load_dataset("mnist", tmp_path, MNIST).shape == (1, 28, 28, 1)


def test_a_folder_by_name_and_by_path(tmp_path, monkeypatch):
    pixels = picture(32, 32)
    save(tmp_path / "cats" / "a.png", pixels)
    monkeypatch.chdir(tmp_path)
    for dataset, data_dir in (
        ("cats", tmp_path),
        ("cats", "data"),
        ("cats/", "data"),
        (str(tmp_path / "cats"), "data"),
    ):
        (image,) = data.load_dataset(dataset, data_dir, CIFAR10)
        np.testing.assert_array_equal(image, pixels)


def test_a_preset_without_data_names_the_command():
    config = get_preset("lsun_church").config
    message = refusal(data.load_dataset, "lsun_church", "data", config)
    assert message.startswith(
        "there is no dataset 'lsun_church' in data: prepare it by "
        "`python -m pipeline.preprocess --dataset=lsun_church --source=PATH "
        "--output_dir=data`, where PATH holds the 126,227 images"
    )


def test_an_unknown_dataset_suggests_the_nearest(tmp_path):
    message = refusal(data.load_dataset, "cifr10", "data", CIFAR10)
    assert "--dataset=photos/ --preset=celeba_64" in message
    assert message.endswith("did you mean 'cifar10'?")


@pytest.mark.parametrize("dataset", ["", "x\0y", "q" * 999])
def test_names_that_cannot_be(dataset):
    message = refusal(data.load_dataset, dataset, "data", CIFAR10)
    assert "neither a preset's name nor a folder" in message


def test_a_path_that_is_missing():
    message = refusal(data.load_dataset, "nowhere/photos", "data", CIFAR10)
    assert message == "there is no folder nowhere/photos: check the path"
