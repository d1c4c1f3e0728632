"""Images in grids and files."""

import sys

import numpy as np
import pytest
from PIL import Image

from transgan_tf import pictures
from transgan_tf.checked import UserError


def test_grid_places_tiles_row_by_row():
    images = np.arange(5, dtype="uint8").reshape(5, 1, 1, 1) + 1
    images = np.broadcast_to(images, (5, 2, 3, 1))
    tiles = pictures.grid(images)
    assert tiles.shape == (4, 9, 1)
    corners = tiles[::2, ::3, 0]
    np.testing.assert_array_equal(corners, [[1, 2, 3], [4, 5, 0]])
    assert pictures.grid(images, columns=5).shape == (2, 15, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip(tmp_path, channels):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (5, 7, channels), "uint8")
    path = tmp_path / "new" / "a.png"
    pictures.write_png(path, image)
    with Image.open(path) as file:
        pixels = np.asarray(file).reshape(5, 7, channels)
    np.testing.assert_array_equal(pixels, image)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


# imageio-ffmpeg leaves its pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_animations_have_all_frames(tmp_path, suffix):
    levels = (20, 90, 160, 230)
    frames = [np.full((12, 14, 1), level, "uint8") for level in levels]
    path = tmp_path / f"walk.{suffix}"
    pictures.write_animation(path, iter(frames), rate=5)
    assert _mean_levels(path) == pytest.approx(levels, abs=12)


def _mean_levels(path):
    if path.suffix == ".gif":
        with Image.open(path) as file:
            levels = []
            for frame in range(file.n_frames):
                file.seek(frame)
                levels.append(np.asarray(file.convert("L")).mean())
        return levels
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    assert size == (14, 12)
    return [np.frombuffer(frame, "uint8").mean() for frame in reader]


def test_unknown_animation_and_missing_package(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"\.gif or \.mp4, got .*walk\.avi"):
        pictures.write_animation(tmp_path / "walk.avi", iter([]), 5)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=r"transgan-tf\[video\]"):
        pictures.write_animation(tmp_path / "walk.mp4", iter([]), 5)
