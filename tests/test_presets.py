"""Holds the presets' numbers and that their records are complete."""

import dataclasses
import shlex

import pytest

from transgan_tf.configs import Config
from transgan_tf.configs import ConfigError
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

NAMES = preset_names()


def leaves(config):
    """Yields the fields of a configuration as `training.steps`."""
    for part in ("generator", "discriminator", "training", "evaluation"):
        for field in dataclasses.fields(getattr(config, part)):
            yield f"{part}.{field.name}"


def test_names():
    assert NAMES == (
        "mnist",
        "cifar10",
        "stl10",
        "celeba_64",
        "celeba_128",
        "celeba_hq",
        "lsun_church",
        "mnist_resnet",
        "cifar10_resnet",
    )


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("cifar", "'cifar10'"),
        ("celeba64", "'celeba_64'"),
        ("church", "'lsun_church'"),
    ],
)
def test_unknown_name_suggests_the_nearest(wrong, hint):
    with pytest.raises(ConfigError) as error:
        get_preset(wrong)
    message = str(error.value)
    assert message.startswith("preset must be one of mnist, cifar10, ")
    assert message.endswith(f"got {wrong!r}; did you mean {hint}?")


def test_unknown_name_like_no_other_suggests_nothing():
    with pytest.raises(ConfigError, match=r"got 'xyz'$"):
        get_preset("xyz")


@pytest.mark.parametrize("name", NAMES)
def test_record_is_complete(name):
    preset = get_preset(name)
    assert preset.name == preset.config.preset == name
    for text in (
        preset.description,
        preset.paper_fid_source,
        preset.our_fid,
        preset.hardware,
        preset.dataset.usual_source,
        *preset.notes,
        *preset.sources.values(),
    ):
        assert text.strip()
        assert "  " not in text
    assert preset.notes
    assert preset.dataset.crop in ("none", "center")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_source(name):
    preset = get_preset(name)
    fields = set(leaves(preset.config))
    for field in fields:
        assert preset.source(field)
    parts = {field.partition(".")[0] for field in fields}
    assert set(preset.sources) <= fields | parts


def test_the_longest_name_gives_the_source():
    preset = get_preset("stl10")
    assert preset.source("training.n_critic") == "authors' exps/stl_train.py"
    assert preset.source("training.log_every_steps") == "ours"
    with pytest.raises(KeyError, match="nonsense"):
        preset.source("nonsense.field")


@pytest.mark.parametrize("name", NAMES)
def test_command_trains_the_preset(name):
    words = shlex.split(get_preset(name).command)
    dataset = [f"--dataset={name}"]
    if name.endswith("_resnet"):
        images = name.removesuffix("_resnet")
        dataset = [f"--dataset={images}", f"--preset={name}"]
    assert words == [
        "python",
        "-m",
        "transgan_tf.train",
        *dataset,
        "--data_dir=data",
        f"--run_dir=runs/{name}",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_config_survives_json(name):
    config = get_preset(name).config
    assert Config.from_json(config.to_json()) == config


def test_sizes_and_paper_numbers():
    rows = {
        name: (p.image_size, p.channels, p.paper_fid, p.our_fid)
        for name, p in ((name, get_preset(name)) for name in NAMES)
    }
    assert rows == {
        "mnist": (28, 1, None, "3.66 (digits' classifier)"),
        "cifar10": (32, 3, 9.26, "not measured"),
        "stl10": (48, 3, 18.28, "not measured"),
        "celeba_64": (64, 3, 5.01, "not measured"),
        "celeba_128": (128, 3, 5.28, "not measured"),
        "celeba_hq": (256, 3, 10.28, "not measured"),
        "lsun_church": (256, 3, 8.94, "not measured"),
        "mnist_resnet": (28, 1, None, "not measured"),
        "cifar10_resnet": (32, 3, None, "not measured"),
    }


# Discriminator and generator images of one micro-batch, micro-batches of each,
# critic updates, generator updates.
AUTHORS_BATCHES = {
    "cifar10": (64, 1, 128, 1, 4, 500_000),
    "stl10": (32, 1, 64, 1, 5, 500_000),
    "celeba_hq": (16, 4, 32, 4, 4, 125_000),
    "lsun_church": (16, 4, 16, 8, 4, 125_000),
}


@pytest.mark.parametrize("name", AUTHORS_BATCHES)
def test_authors_batches(name):
    training = get_preset(name).config.training
    parts = training.accumulation, training.generator_accumulation
    assert AUTHORS_BATCHES[name] == (
        training.batch_size // parts[0],
        parts[0],
        training.generator_batch_size // parts[1],
        parts[1],
        training.n_critic,
        training.steps,
    )


@pytest.mark.parametrize("name", [n for n in NAMES if "mnist" not in n])
def test_the_authors_common_recipe(name):
    training = get_preset(name).config.training
    assert training.loss == "wgan_gp"
    assert (training.penalty_weight, training.drift_weight) == (10, 1e-3)
    assert training.generator_learning_rate == 1e-4
    assert training.discriminator_learning_rate == 1e-4
    assert (training.beta_1, training.beta_2) == (0, 0.99)
    assert (training.clip_norm, training.decay_start) == (5, 1)
    assert training.horizontal_flip


# Moving average (fixed decay, warm-up), augmentation, samples of a score.
AUTHORS_SETTINGS = {
    "cifar10": (None, 0.1, "translation,cutout,color", 50_000),
    "stl10": (None, 0.05, "translation,stl_erase_ratio,color", 20_000),
    "celeba_hq": (0.995, 0.1, "translation,erase_ratio,color", 50_000),
    "lsun_church": (0.995, 0.1, "translation,erase_ratio,color", 50_000),
}


@pytest.mark.parametrize("name", AUTHORS_SETTINGS)
def test_authors_settings(name):
    config = get_preset(name).config
    training = config.training
    assert training.ema_images == 500_000
    assert AUTHORS_SETTINGS[name] == (
        training.ema_beta,
        training.ema_warmup,
        training.augmentation,
        config.evaluation.num_images,
    )


# Generator's and discriminator's normalization, and whether each has noise.
NETWORKS = {
    "mnist": ("token_scaling", "token_scaling", False, False),
    "cifar10": ("layer_norm", "layer_norm", False, True),
    "stl10": ("token_scaling", "token_scaling", False, True),
    "celeba_64": ("token_scaling", "layer_norm", False, False),
    "celeba_128": ("token_scaling", "layer_norm", False, False),
    "celeba_hq": ("token_scaling", "layer_norm", True, False),
    "lsun_church": ("token_scaling", "layer_norm", True, False),
    "mnist_resnet": ("token_scaling", "none", False, False),
    "cifar10_resnet": ("layer_norm", "none", False, False),
}


@pytest.mark.parametrize("name", NAMES)
def test_norms_and_noise(name):
    config = get_preset(name).config
    generator, discriminator = config.generator, config.discriminator
    assert NETWORKS[name] == (
        generator.norm,
        discriminator.norm,
        generator.attention_noise,
        discriminator.attention_noise,
    )


def test_attention_is_global_where_the_authors_is():
    def windows(network):
        return [stage.block_windows() for stage in network.stages]

    church = get_preset("lsun_church").config
    assert windows(church.generator) == [
        (8,) * 5,
        (16,) * 4,
        (32,) * 4,
        (16,) * 4,
        (16,) * 4,
        (16,) * 4,
    ]
    assert windows(church.discriminator) == [
        (16, 16, 64),
        (32, 32, 32),
        (16, 16, 16, 16),
    ]
    stl = get_preset("stl10").config
    assert windows(stl.generator) == [(12,) * 7, (24,) * 5, (48,) * 3]


def test_the_records_say_what_is_not_the_papers():
    def notes(name):
        return " ".join(get_preset(name).notes)

    assert "ours" in get_preset("celeba_64").description
    assert "third party" in notes("celeba_128")
    assert "cross-attention" in notes("celeba_hq")
    assert "low-pass" in notes("celeba_hq")
    for name in ("celeba_hq", "lsun_church"):
        assert "125,000 generator updates" in notes(name)
