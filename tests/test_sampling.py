"""Seeds to images: truncation, batches, walks."""

import numpy as np
import pytest

from tests.tiny import tiny_generator
from transgan_tf import sampling
from transgan_tf.generator import Generator
from transgan_tf.presets import get_preset
from transgan_tf.randomness import latents


@pytest.fixture(scope="module")
def generator():
    network = Generator(tiny_generator(attention_noise=True))
    network.build((None, 5))
    for variable in network.variables:
        if variable.path.endswith("strength"):
            variable.assign(0.5)
    return network


def test_a_seed_names_one_image_whatever_the_batch(generator, monkeypatch):
    monkeypatch.setattr(sampling, "IMAGES_AT_ONCE", 2)
    many = sampling.generate(generator, [3, 11, 4])
    alone = sampling.generate(generator, [11])
    assert many.shape == (3, 12, 12, 3)
    assert many.dtype == np.uint8
    difference = many[1].astype(int) - alone[0].astype(int)
    assert np.abs(difference).max() <= 1
    assert np.abs(many[0].astype(int) - many[1]).max() > 1


@pytest.mark.parametrize(
    ("preset", "count"),
    # 64 small images; 2**28 scores of 4 heads, 48**2 tokens, windows of 48**2;
    # 64 * 64**2 pixels of images of 256**2.
    [("cifar10", 64), ("stl10", 12), ("lsun_church", 4)],
)
def test_as_many_images_at_once_as_fit(preset, count):
    config = get_preset(preset).config.generator
    assert sampling.images_at_once(config) == count


def test_truncation_scales_the_latent(generator):
    z = latents(np.array([7]), 5) * 0.25
    expected = sampling.render(generator, z)
    actual = sampling.generate(generator, [7], truncation=0.25)
    np.testing.assert_array_equal(actual, expected)


def test_attention_noise_is_off_unless_asked_for(generator):
    plain = sampling.generate(generator, [0, 1])
    noisy = sampling.generate(generator, [0, 1], attention_noise=True)
    again = sampling.generate(generator, [0, 1], attention_noise=True)
    assert (plain != noisy).any()
    np.testing.assert_array_equal(noisy, again)


def test_slerp_by_hand():
    start, stop = np.array([2.0, 0.0]), np.array([0.0, 4.0])
    half = sampling.slerp(start, stop, 0.5)
    # A right angle halved, at the mean length 3.
    np.testing.assert_allclose(half, [3 / np.sqrt(2), 3 / np.sqrt(2)])
    third = sampling.slerp(start, stop, 1 / 3)
    length = 2 + 2 / 3
    expected = [length * np.cos(np.pi / 6), length * np.sin(np.pi / 6)]
    np.testing.assert_allclose(third, expected)
    np.testing.assert_allclose(sampling.slerp(start, stop, 0.0), start)
    np.testing.assert_allclose(
        sampling.slerp(start, stop, 1.0), stop, atol=1e-12
    )


def test_slerp_of_the_same_latent_stays():
    z = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(sampling.slerp(z, z, 0.3), z)


def test_interpolation_passes_the_seeds_and_comes_back(generator):
    frames = list(sampling.interpolate(generator, [5, 9], frames=3))
    assert len(frames) == 6
    stops = sampling.generate(generator, [5, 9])
    for place, stop in ((0, stops[0]), (3, stops[1])):
        gap = frames[place].astype(int) - stop.astype(int)
        assert np.abs(gap).max() <= 1
