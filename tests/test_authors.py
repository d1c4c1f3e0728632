"""The names, shapes and order of the authors' state dicts."""

import functools
import json
import math

import numpy as np
import pytest

from tests import authors
from transgan_tf.authors import Entry
from transgan_tf.authors import discriminator_entries
from transgan_tf.authors import generator_entries
from transgan_tf.authors import is_celeba_hq
from transgan_tf.authors import relative_position_index
from transgan_tf.checked import ConfigError
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.layers import position
from transgan_tf.presets import get_preset


@functools.cache
def full_size():
    """`[name, shape]` of state dicts of the authors' full-size networks.

    As PyTorch gave them for the settings of the authors' launchers.
    """
    with np.load(authors.GOLDEN / "state_dicts.npz") as file:
        return {name: json.loads(str(file[name])) for name in file.files}


def listed(entries):
    return [[entry.name, list(entry.shape)] for entry in entries]


@pytest.mark.parametrize("name", ["cifar10", "stl10", "lsun_church"])
def test_the_full_size_networks_have_the_authors_state_dicts(name):
    config = get_preset(name).config
    generator = generator_entries(config.generator)
    discriminator = discriminator_entries(config.discriminator)
    assert listed(generator) == full_size()[f"{name}_generator"]
    assert listed(discriminator) == full_size()[f"{name}_discriminator"]
    count = generator_parameters(config.generator)
    assert numbers(generator) == count
    count = discriminator_parameters(config.discriminator)
    assert numbers(discriminator) == count


def numbers(entries):
    weights = [entry.our_shape for entry in entries if entry.path is not None]
    return sum(map(math.prod, weights))


@pytest.mark.parametrize("name", ["cifar10", "stl10", "church256"])
def test_small_networks_have_the_golden_parameters(name):
    case = authors.load_case(name)
    generator, discriminator = authors.network_configs(name, case)
    weights = [e for e in generator_entries(generator) if e.path is not None]
    assert listed(weights) == case["generator_parameters"]
    entries = discriminator_entries(discriminator)
    weights = [entry for entry in entries if entry.path is not None]
    assert listed(weights) == case["discriminator_parameters"]


def test_celeba_hq_is_known_by_its_names():
    names = {
        key: [name for name, _ in rows] for key, rows in full_size().items()
    }
    known = [key for key in names if is_celeba_hq(names[key])]
    assert known == ["celeba_hq_generator"]
    assert len(names) == 7


def test_the_index_of_relative_positions():
    expected = [
        [4, 3, 1, 0],
        [5, 4, 2, 1],
        [7, 6, 4, 3],
        [8, 7, 5, 4],
    ]
    assert relative_position_index(2).tolist() == expected
    index = relative_position_index(7)
    assert index.dtype == np.int64
    np.testing.assert_array_equal(index, position.relative_position_index(7))


@pytest.mark.parametrize(
    ("name", "shape", "ours", "place", "our_place"),
    [
        ("head.weight", (3, 5), (5, 3), (2, 4), (4, 2)),
        ("head.bias", (3,), (3,), (2,), (2,)),
        (
            "fRGB_1.weight",
            (3, 5, 2, 7),
            (2, 7, 5, 3),
            (2, 4, 1, 6),
            (1, 6, 4, 2),
        ),
        ("deconv.0.weight", (3, 5, 1, 1), (5, 3), (2, 4, 0, 0), (4, 2)),
        ("pos_embed_1", (1, 3, 5), (1, 3, 5), (0, 2, 4), (0, 2, 4)),
        ("a.relative_position_bias_table", (9, 4), (9, 4), (8, 2), (8, 2)),
        ("a.noise_strength_1", (), (), (), ()),
    ],
)
def test_tensors_are_turned_and_back(name, shape, ours, place, our_place):
    value = np.arange(math.prod(shape)).reshape(shape)
    entry = Entry(name, shape, "ours")
    turned = entry.to_ours(value)
    assert turned.shape == entry.our_shape == ours
    assert turned[our_place] == value[place]
    np.testing.assert_array_equal(entry.to_theirs(turned), value)


@pytest.mark.parametrize(
    ("preset", "change", "sentence"),
    [
        ("mnist", "", "generator.channels=1, where theirs has 3"),
        ("celeba_64", "", "no generator of 4 stages"),
        ("cifar10", "generator.heads=2", "generator.heads=2"),
        (
            "cifar10",
            "generator.stages.2.window=16",
            "generator.stages.2.window=16, where theirs has 32",
        ),
        (
            "stl10",
            "discriminator.stages.1.depth=2",
            "discriminator.stages.1.depth=2, where theirs has 3",
        ),
        ("stl10", "discriminator.stages.0.width=192", "theirs has 288"),
        (
            "lsun_church",
            "discriminator.stages.2.depth=3",
            "discriminator.stages.2.depth=3, where theirs has 4",
        ),
        (
            "lsun_church",
            "generator.attention_noise=false",
            "generator.attention_noise=False, where theirs has True",
        ),
        (
            "lsun_church",
            "generator.attention=axis",
            "generator.attention=axis, where theirs has grid",
        ),
        (
            "lsun_church",
            "discriminator.attention=standard",
            "discriminator.attention=standard, where theirs has grid",
        ),
        (
            "cifar10",
            "generator.stages.0.global_blocks=1",
            "generator.stages.0.global_blocks=1, where theirs has 0",
        ),
        (
            "lsun_church",
            "discriminator.stages.1.global_blocks=1",
            "discriminator.stages.1.global_blocks=1, where theirs has 0",
        ),
    ],
)
def test_networks_that_are_not_the_authors_are_refused(
    preset, change, sentence
):
    config = get_preset(preset).config.override([change] if change else [])
    with pytest.raises(ConfigError) as error:
        generator_entries(config.generator)
        discriminator_entries(config.discriminator)
    assert sentence in str(error.value)


def test_an_attention_that_replaces_none_is_the_authors():
    config = get_preset("cifar10").config
    other = config.override(["generator.attention=axis"])
    assert generator_entries(other.generator) == generator_entries(
        config.generator
    )
