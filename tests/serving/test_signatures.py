"""The signatures, exported and run in a session as TensorFlow Serving does."""

import math
import types

import numpy as np
import pytest
import tensorflow as tf

from serving import signatures
from serving.check import decode_png
from serving.export import write_saved_model
from serving.servable import Servable
from tests.serving.tiny_run import Probe
from tests.serving.tiny_run import tiny_generator
from transgan_tf import sampling
from transgan_tf.randomness import latents
from transgan_tf.records import to_uint8

FLOAT, INT = np.float32, np.int64
SEEDS = np.array([0, 7, -1, 2**62, -(2**63), 2**63 - 1])


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def load(generator, folder):
    write_saved_model(folder, generator)
    return Servable(folder)


@pytest.fixture(scope="module")
def servable(generator, tmp_path_factory):
    servable = load(generator, tmp_path_factory.mktemp("generator"))
    yield servable
    servable.close()


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    servable = load(Probe(), tmp_path_factory.mktemp("probe"))
    yield servable
    servable.close()


def call(servable, key, **inputs):
    """Returns a signature's only output; arrays are fed as they are."""
    signature = servable.signatures[key]
    (output,) = servable.run(signature, inputs).values()
    return output


def sample(servable, seeds, truncation=1.0):
    truncation = np.broadcast_to(FLOAT(truncation), len(seeds))
    seed = np.asarray(seeds, INT)
    return call(servable, "sample", seed=seed, truncation=truncation)


def bits(files):
    """Returns the latents that a probe's PNG files hold, `(N, 3)`."""
    pixels = np.stack([decode_png(file) for file in files])
    return np.ascontiguousarray(pixels[..., 0]).view(FLOAT)[..., 0]


def test_names_types_and_shapes(servable):
    kinds = {1: "float", 7: "string", 9: "int64"}

    def described(tensors):
        return {
            name: (kinds[info.dtype], [d.size for d in info.tensor_shape.dim])
            for name, info in tensors.items()
        }

    found = {
        key: (described(signature.inputs), described(signature.outputs))
        for key, signature in servable.signatures.items()
    }
    numbers, seeds = ("float", [-1]), ("int64", [-1])
    files = {"png_bytes": ("string", [-1])}
    assert found == {
        "serving_default": (
            {"latents": ("float", [-1, 5])},
            {"images": ("float", [-1, 12, 12, 3])},
        ),
        "sample": ({"seed": seeds, "truncation": numbers}, files),
        "interpolate": (
            {
                "start": seeds,
                "stop": seeds,
                "position": numbers,
                "truncation": numbers,
            },
            files,
        ),
    }


def test_images_are_the_generators_clipped_and_without_noise(
    servable, generator
):
    z = latents(np.arange(4), 5).numpy()
    images = call(servable, "serving_default", latents=z)
    expected = generator(z).numpy()
    assert expected.max() > 1.5 and expected.min() < -1.5
    np.testing.assert_allclose(images, expected.clip(-1, 1), atol=1e-5)
    alone = call(servable, "serving_default", latents=z[2:3])
    np.testing.assert_allclose(alone[0], images[2], atol=1e-5)


def test_samples_are_those_of_the_command_line(servable, generator):
    for truncation in (1.0, 0.7):
        files = sample(servable, SEEDS, truncation)
        pixels = np.stack([decode_png(file) for file in files])
        expected = sampling.generate(generator, SEEDS, truncation)
        assert pixels.shape == expected.shape == (6, 12, 12, 3)
        assert np.abs(pixels - expected.astype(int)).max() <= 1
        assert len(set(files)) == 6


def test_a_seeds_latent_has_the_same_bits_in_every_batch(probe):
    truncation = np.array([1, 0.5, 0.3, 1, 1e-3, 0.999], FLOAT)
    expected = latents(SEEDS, 3).numpy() * truncation[:, None]
    together = bits(sample(probe, SEEDS, truncation))
    np.testing.assert_array_equal(together, expected)
    alone = [
        bits(sample(probe, [seed], scale))[0]
        for seed, scale in zip(SEEDS, truncation, strict=True)
    ]
    np.testing.assert_array_equal(alone, expected)


def test_latents_have_the_bits_that_they_always_had(probe):
    # Computed once; another number here renames the images of all seeds.
    known = {
        0: [0xBF8385AC, 0x3F771C86, 0xBF0A13DC],
        7: [0xC0396F99, 0x3E2BA184, 0xBF76C27E],
        -1: [0xBF97D0BA, 0x3FA282F0, 0x3E4BC627],
        2**62: [0xBF3A493F, 0x3DEBF4C5, 0x3FAC0F6F],
    }
    found = bits(sample(probe, list(known))).view(np.uint32)
    assert found.tolist() == list(known.values())


def test_interpolation_is_spherical(probe):
    position = np.array([0, 0.25, 1, 0.6, 0.5], FLOAT)
    start, stop = np.array([1, 1, 1, 2, 9]), np.array([4, 4, 4, -8, 9])
    truncation = np.array([1, 1, 0.5, 0.8, 0.7], FLOAT)
    path = call(
        probe,
        "interpolate",
        start=start,
        stop=stop,
        position=position,
        truncation=truncation,
    )
    ends = [latents(s, 3).numpy() * truncation[:, None] for s in (start, stop)]
    expected = [
        sampling.slerp(*row) for row in zip(*ends, position, strict=True)
    ]
    np.testing.assert_allclose(bits(path), expected, rtol=2e-6)
    np.testing.assert_allclose(bits(path)[[0, 2]], [ends[0][0], ends[1][2]])


@pytest.mark.parametrize(
    ("start", "stop", "position", "expected"),
    [
        ([2, 0], [0, 1], 0.5, [1.5 / math.sqrt(2)] * 2),
        ([2, 0], [0, 2], 1 / 3, [math.sqrt(3), 1]),
        ([3, 4], [3, 4], 0.3, [3, 4]),
        ([1, 0], [-2, 0], 0.75, [-1.25, 0]),
        ([0, 0], [4, 2], 0.5, [2, 1]),
    ],
)
def test_slerp(start, stop, position, expected):
    rows = tf.constant([start], tf.float32), tf.constant([stop], tf.float32)
    result = signatures.slerp(*rows, tf.constant([position]))
    np.testing.assert_allclose(result, [expected], atol=1e-6)


def test_no_rows_give_no_rows(servable):
    none, seeds = np.zeros(0, FLOAT), np.zeros(0, INT)
    images = call(servable, "serving_default", latents=np.zeros((0, 5), FLOAT))
    assert images.shape == (0, 12, 12, 3)
    assert sample(servable, []).shape == (0,)
    ends = {"start": seeds, "stop": seeds}
    files = call(
        servable, "interpolate", position=none, truncation=none, **ends
    )
    assert files.shape == (0,)


TWO, ONES = np.array([1, 2]), np.ones(2, FLOAT)


def row(*values):
    return np.array(values, FLOAT)


@pytest.mark.parametrize(
    ("key", "changes", "words"),
    [
        ("serving_default", {"latents": np.zeros((2, 6), FLOAT)}, "latents"),
        ("serving_default", {"latents": np.zeros((2, 1), FLOAT)}, "latents"),
        ("serving_default", {"latents": np.zeros(5, FLOAT)}, "latents"),
        ("serving_default", {"latents": np.zeros((1, 2, 5), FLOAT)}, "latents"),
        ("serving_default", {"latents": FLOAT(1)}, "latents"),
        (
            "serving_default",
            {"latents": np.full((1, 5), np.nan, FLOAT)},
            "latents must be finite, got] [nan",
        ),
        (
            "serving_default",
            {"latents": row(0, 1, -np.inf, 0, 0)[None]},
            "latents must be finite, got] [-inf]",
        ),
        (
            "serving_default",
            {"latents": np.full((1, 5), 3e38, FLOAT)},
            "latents must be small enough for finite images",
        ),
        ("serving_default", {"latents": np.zeros((1, 5))}, "to be float but"),
        ("sample", {"truncation": row(1, 0)}, "truncation must lie in (0, 1]"),
        ("sample", {"truncation": row(1, 1.25)}, "(0, 1], got] [1.25]"),
        ("sample", {"truncation": row(-1, 1)}, "truncation must lie in (0, 1]"),
        ("sample", {"truncation": row(np.nan, 1)}, "(0, 1], got] [nan]"),
        (
            "sample",
            {"truncation": row(1)},
            "seed, truncation must have equally many rows, got] [2 1]",
        ),
        ("sample", {"seed": TWO[:1]}, "must have equally many rows"),
        ("sample", {"seed": TWO[:, None]}, "seed"),
        ("sample", {"seed": INT(3)}, "seed"),
        ("sample", {"truncation": ONES[:, None]}, "truncation"),
        ("sample", {"seed": ONES}, "to be int64 but float"),
        ("interpolate", {"position": row(0, 1.5)}, "[0, 1], got] [1.5]"),
        ("interpolate", {"position": row(-0.5, 0)}, "[0, 1], got] [-0.5]"),
        ("interpolate", {"position": row(np.nan, 0)}, "position must lie"),
        ("interpolate", {"truncation": row(0, 1)}, "truncation must lie"),
        ("interpolate", {"position": row(0)}, "rows, got] [2 2 1 2]"),
        ("interpolate", {"start": TWO[:1]}, "rows, got] [1 2 2 2]"),
        ("interpolate", {"stop": np.arange(3)}, "rows, got] [2 3 2 2]"),
    ],
)
def test_invalid_values_are_refused_by_name_and_rule(
    servable, key, changes, words
):
    valid = {
        "serving_default": {"latents": np.zeros((2, 5), FLOAT)},
        "sample": {"seed": TWO, "truncation": ONES},
        "interpolate": {
            "start": TWO,
            "stop": TWO,
            "position": ONES,
            "truncation": ONES,
        },
    }[key]
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        call(servable, key, **valid | changes)
    told = caught.value.message.partition("[[{{")[0]
    assert words in told
    # The rule comes before the network is run.
    assert "render" not in told


@pytest.mark.parametrize(
    "precision",
    ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)],
)
def test_half_precision_gives_float32(precision, generator):
    half = tiny_generator(dtype=precision)
    assert half.compute_dtype == precision.removeprefix("mixed_")
    functions = signatures.make_signatures(half)
    z = latents(np.arange(3), 5)
    images = functions["serving_default"](latents=z)["images"]
    assert images.dtype == tf.float32
    expected = tf.clip_by_value(generator(z), -1.0, 1.0)
    difference = np.abs(images - expected)
    assert 0 < difference.mean() < 0.05
    files = functions["sample"](seed=np.arange(3), truncation=[1.0] * 3)
    pixels = np.stack([decode_png(f) for f in files["png_bytes"].numpy()])
    assert np.abs(pixels - to_uint8(images.numpy()).astype(int)).max() <= 1


def test_pixels_are_clipped_and_rounded_half_to_even():
    class Levels:
        config = types.SimpleNamespace(latent_dim=2)

        def __call__(self, z):
            # 127.5, 0.4, 1.6, and both ends passed.
            levels = [0.0, 0.4 / 127.5 - 1, 1.6 / 127.5 - 1, 1.5, -9.0]
            return tf.zeros([tf.shape(z)[0], 1, 5, 1]) + tf.reshape(
                tf.constant(levels), [1, 1, 5, 1]
            )

    function = signatures.make_signatures(Levels())["sample"]
    (file,) = function(seed=[3], truncation=[1.0])["png_bytes"].numpy()
    assert decode_png(file)[..., 0].tolist() == [[128, 0, 2, 255, 0]]
