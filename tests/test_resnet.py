"""The convolutional pair: numbers by hand, the step, a run, its rules."""

import contextlib
import dataclasses
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import TRAINING
from tests.tiny import tiny_discriminator
from tests.tiny import tiny_generator
from transgan_tf import ablate
from transgan_tf import ablation
from transgan_tf.checked import ConfigError
from transgan_tf.checkpoints import load_generator
from transgan_tf.configs import Config
from transgan_tf.configs import TrainingConfig
from transgan_tf.discriminator import Discriminator
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.estimate import training_memory
from transgan_tf.gan import make_gan
from transgan_tf.generator import Generator
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage
from transgan_tf.networks import make_discriminator
from transgan_tf.networks import make_generator
from transgan_tf.presets import get_preset
from transgan_tf.resnet import ResidualBlock
from transgan_tf.resnet import ResNetDiscriminator
from transgan_tf.resnet import ResNetGenerator
from transgan_tf.sampling import generate
from transgan_tf.sampling import images_at_once
from transgan_tf.training import train

GENERATOR = {
    "stages": (Stage(3, 6, 1), Stage(6, 5, 1), Stage(12, 5, 2)),
    "norm": "token_scaling",
    "latent_dim": 5,
    "architecture": "resnet",
}
DISCRIMINATOR = {
    "stages": (Stage(6, 5, 1), Stage(3, 7, 2)),
    "norm": "none",
    "image_size": 12,
    "architecture": "resnet",
}


def resnet_config(**training):
    """Returns a 12 x 12 px `Config` of both networks."""
    return Config(
        "tiny",
        GeneratorConfig(**GENERATOR),
        DiscriminatorConfig(**DISCRIMINATOR),
        TrainingConfig(**TRAINING | training),
    )


def real_images(count=8):
    rng = np.random.default_rng(0)
    return np.tanh(rng.standard_normal((count, 12, 12, 3))).astype("float32")


def state(gan):
    networks = (gan.generator, gan.discriminator, gan.ema_generator)
    return {w.path: w.numpy() for network in networks for w in network.weights}


def moved_by_a_step(**training):
    """Returns how far each weight has moved after a step, by path."""
    gan = make_gan(resnet_config(**training))
    for loss_scale in gan.loss_scales.values():
        # Low enough for every update to be made.
        loss_scale.scale.assign(16.0)
    before = state(gan)
    logs = tf.function(gan.train_step)(tf.constant(real_images()))
    assert all(np.isfinite(float(value)) for value in logs.values())
    after = state(gan)
    return {path: np.abs(after[path] - before[path]).max() for path in after}


# === The networks ===


def block_by_hand(resolution, x, takes_image=False):
    """Calls a block of one channel whose kernels have only a centre."""
    stage = Stage(resolution, 1, 1)
    config = GeneratorConfig((stage,), norm="none", architecture="resnet")
    block = ResidualBlock(config, stage, takes_image)
    x = np.array(x, "float32")[None, ..., None]
    block.build(x.shape)
    for convolution, centre, bias in (
        (block.conv_1, 2.0, 1.0),
        (block.conv_2, 3.0, 0.0),
        (block.shortcut, 5.0, 0.0),
    ):
        if convolution is not None:
            kernel = np.zeros(convolution.kernel.shape, "float32")
            side = kernel.shape[0] // 2
            kernel[side, side] = centre
            convolution.set_weights([kernel, np.array([bias])])
    assert block.compute_output_shape(x.shape) == block(x).shape
    return block(x).numpy()[0, ..., 0]


def test_a_block_doubles_by_hand():
    # Activated 2 -> convolved 5 -> 15, beside 5 * 2; negative: 1 -> 3, -10.
    expected = [[25, 25, -7, -7], [25, 25, -7, -7]]
    np.testing.assert_allclose(
        block_by_hand(4, [[2, -2], [2, -2]]), expected * 2
    )


def test_a_block_halves_by_hand():
    # Activated 1, 0, 3, 6 -> 3, 1, 7, 13 -> 9, 3, 21, 39, whose mean is 18,
    # beside 5 times the mean of x.
    x = [[1, -2], [3, 6]]
    np.testing.assert_allclose(block_by_hand(1, x), [[18 + 10]])
    # An image as it is: 3, -3, 7, 13, activated, 9, 0, 21, 39.
    np.testing.assert_allclose(block_by_hand(1, x, True), [[17.25 + 10]])


def test_a_block_of_the_same_shape_adds_its_input():
    x = [[1, -2], [3, 6]]
    np.testing.assert_allclose(block_by_hand(2, x), [[10, 1], [24, 45]])


def test_the_discriminator_averages_its_last_map():
    config = DiscriminatorConfig(
        (Stage(2, 1, 1),), norm="none", image_size=4, architecture="resnet"
    )
    network = ResNetDiscriminator(config)
    network.build((None, 4, 4, 3))
    for weight in network.weights:
        weight.assign(tf.zeros_like(weight))
    (block,) = network.blocks
    # One channel is the mean of a cell's red; then activated and averaged.
    block.shortcut.kernel.assign(np.eye(3)[:1].reshape(1, 1, 3, 1))
    network.head.kernel.assign([[7.0]])
    network.head.bias.assign([1.0])
    images = np.zeros((3, 4, 4, 3), "float32")
    images[1, :2, :2, 0] = 4
    images[1, 2:, 2:, 0] = -8
    images[2, ..., 1] = 9
    np.testing.assert_allclose(network(images), [[1], [7 + 1], [1]])


def test_the_initial_weights():
    keras.utils.set_random_seed(0)
    stage = Stage(4, 40, 1)
    config = GeneratorConfig((stage,), architecture="resnet")
    block = ResidualBlock(config, stage)
    block.build((None, 8, 8, 20))
    for convolution, variance in (
        (block.conv_1, 4 / (9 * 20 + 9 * 40)),
        (block.conv_2, 4 / (9 * 40 + 9 * 40)),
        (block.shortcut, 2 / (20 + 40)),
    ):
        kernel = convolution.kernel.numpy()
        assert 0.95 < np.abs(kernel).max() / (3 * variance) ** 0.5 <= 1
        assert kernel.var() == pytest.approx(variance, rel=0.15)
        assert not convolution.bias.numpy().any()


def convolution_size(side, inputs, width):
    return side * side * inputs * width + width


def test_sizes_by_hand():
    config = resnet_config()
    sizes = [
        5 * 54 + 54,
        # 3 x 3 of 6, as wide as before: no shortcut
        2 * (9 * 6 * 6 + 6),
        # 6 x 6 of 5, then 12 x 12, and a block that changes nothing
        (9 * 6 * 5 + 5) + (9 * 5 * 5 + 5) + (6 * 5 + 5),
        2 * (9 * 5 * 5 + 5) + (5 * 5 + 5),
        2 * (9 * 5 * 5 + 5),
        9 * 5 * 3 + 3,
    ]
    generator = make_generator(config.generator)
    generator.build((None, 5))
    assert generator.count_params() == sum(sizes)
    assert generator_parameters(config.generator) == sum(sizes)
    sizes = [
        (9 * 3 * 5 + 5) + (9 * 5 * 5 + 5) + (3 * 5 + 5),
        (9 * 5 * 7 + 7) + (9 * 7 * 7 + 7) + (5 * 7 + 7),
        2 * (9 * 7 * 7 + 7),
        7 + 1,
    ]
    discriminator = make_discriminator(config.discriminator)
    discriminator.build((None, 12, 12, 3))
    assert discriminator.count_params() == sum(sizes)
    assert discriminator_parameters(config.discriminator) == sum(sizes)


@pytest.mark.parametrize("norm", ["layer_norm", "none"])
def test_sizes_with_other_norms(norm):
    fields = {"norm": norm, "channels": 1}
    generator = GeneratorConfig(**GENERATOR | fields)
    network = make_generator(generator)
    network.build((None, 5))
    assert network.count_params() == generator_parameters(generator)
    judge = DiscriminatorConfig(**DISCRIMINATOR | fields)
    network = make_discriminator(judge)
    network.build((None, 12, 12, 1))
    assert network.count_params() == discriminator_parameters(judge)


def test_the_presets_sizes():
    small, large = (
        get_preset(name).config for name in ("mnist_resnet", "cifar10_resnet")
    )
    # As many as `mnist` has, 332,167 and 229,061, to 2 %.
    assert generator_parameters(small.generator) == 333_889
    assert discriminator_parameters(small.discriminator) == 233_041
    # 128 channels throughout, and LayerNorm's 1,792.
    assert generator_parameters(large.generator) == 1_202_691 + 1_792
    assert discriminator_parameters(large.discriminator) == 1_053_825


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_the_presets_have_the_transformers_recipe(name):
    plain, resnet = get_preset(name), get_preset(f"{name}_resnet")
    for part in ("training", "evaluation"):
        assert getattr(resnet.config, part) == getattr(plain.config, part)
    assert resnet.dataset == plain.dataset
    assert resnet.paper_fid is None and resnet.our_fid == "not measured"


def test_as_many_images_at_once_as_fit():
    config = get_preset("cifar10_resnet").config.generator
    assert images_at_once(config) == 64


def test_the_factory_makes_what_a_configuration_names():
    config = resnet_config()
    assert type(make_generator(config.generator)) is ResNetGenerator
    assert type(make_discriminator(config.discriminator)) is ResNetDiscriminator
    assert type(make_generator(tiny_generator())) is Generator
    assert type(make_discriminator(tiny_discriminator())) is Discriminator


def test_another_architectures_configuration_is_refused():
    for network, config, wanted in (
        (Generator, GeneratorConfig(**GENERATOR), "transformer"),
        (Discriminator, DiscriminatorConfig(**DISCRIMINATOR), "transformer"),
        (ResNetGenerator, tiny_generator(), "resnet"),
        (ResNetDiscriminator, tiny_discriminator(), "resnet"),
    ):
        with pytest.raises(ConfigError, match=f"must be '{wanted}' for this"):
            network(config)


# === The configuration ===


def stages(*rows):
    return {"stages": tuple(Stage(*row[:3], **row[3]) for row in rows)}


MISTAKES = {
    "generator.heads must be left out in a ResNet, got 2": {"heads": 2},
    "generator.attention must be left out in a ResNet, got 'axis'": {
        "attention": "axis"
    },
    "generator.norm must be one of layer_norm, token_scaling, none, got 'batch'"
    "": {"norm": "batch"},
    "generator.architecture must be one of transformer, resnet, got 'cnn'": {
        "architecture": "cnn"
    },
    "generator.stages[1].window must be left out in a ResNet, got 3": stages(
        (3, 4, 0, {}), (6, 4, 1, {"window": 3})
    ),
    "generator.stages[1].upsample must be left out in a ResNet, got 'bicubic'"
    "": stages((3, 4, 0, {}), (6, 4, 1, {"upsample": "bicubic"})),
    "generator.stages[1].resolution must be twice the resolution before it, 6, "
    "got 9": stages((3, 4, 0, {}), (9, 4, 1, {})),
    "generator.stages[1].depth must be at least 1, for the block that changes "
    "the resolution, got 0": stages((3, 4, 0, {}), (6, 4, 0, {})),
}
JUDGES_MISTAKES = {
    "discriminator.multi_scale must be left out in a ResNet, got False": {
        "multi_scale": False
    },
    "discriminator.stages[0].resolution must be half the resolution before it, "
    "12, got 12": stages((12, 4, 1, {})),
    "discriminator.stages[1].resolution must be half the resolution before it, "
    "6, got 2": stages((6, 4, 1, {}), (2, 4, 1, {})),
    "discriminator.stages[0].depth must be at least 1, for the block that "
    "changes the resolution, got 0": stages((6, 4, 0, {})),
}


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes_in_a_generator(sentence):
    with pytest.raises(ConfigError) as error:
        GeneratorConfig(**GENERATOR | MISTAKES[sentence])
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("sentence", JUDGES_MISTAKES)
def test_mistakes_in_a_discriminator(sentence):
    with pytest.raises(ConfigError) as error:
        DiscriminatorConfig(**DISCRIMINATOR | JUDGES_MISTAKES[sentence])
    assert str(error.value) == sentence


def test_a_transformer_needs_a_norm():
    with pytest.raises(ConfigError, match="layer_norm, token_scaling, got"):
        tiny_generator(norm="none")


def test_a_configuration_from_before_is_of_transformers():
    values = get_preset("mnist").config.to_dict()
    for part in ("generator", "discriminator"):
        del values[part]["architecture"]
    assert Config.from_dict(values) == get_preset("mnist").config


# === The step ===


def test_a_step_moves_every_weight():
    moved = moved_by_a_step(augmentation="", n_critic=1)
    assert min(moved.values()) > 0, moved


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("augmentation", ["", "translation,cutout,color"])
def test_a_compiled_step_moves_every_weight(augmentation, precision):
    moved = moved_by_a_step(
        augmentation=augmentation, precision=precision, jit=True
    )
    assert min(moved.values()) > 0, moved


def step_gradients(**training):
    """Returns the discriminator's gradients of one update."""
    keras.utils.set_random_seed(3)
    gan = make_gan(resnet_config(augmentation="", n_critic=1, **training))
    gan.clip_norm = 1e9
    gan.generator_optimizer = keras.optimizers.SGD(0.0)
    gan.discriminator_optimizer = keras.optimizers.SGD(1.0)
    gan.discriminator_optimizer.build(gan.discriminator.trainable_variables)
    gan.generator_optimizer.build(gan.generator.trainable_variables)
    before = gan.discriminator.get_weights()
    gan.train_step(tf.constant(real_images(4)))
    after = gan.discriminator.get_weights()
    return [a - b for a, b in zip(before, after, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"jit": True}, {"rematerialize": True}])
def test_how_it_is_run_changes_nothing(change):
    plain, other = step_gradients(), step_gradients(**change)
    for one, two in zip(plain, other, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(one).max())


SEVERAL_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2])
)
from tests import test_resnet
test_resnet.fit_and_save(sys.argv[1], int(sys.argv[2]))
"""


def fit_and_save(path, devices):
    """Fits two steps on several devices and writes the state to a file."""
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        names = [f"CPU:{number}" for number in range(devices)]
        strategy = tf.distribute.MirroredStrategy(names)
    assert strategy.num_replicas_in_sync == devices
    keras.utils.set_random_seed(3)
    with strategy.scope():
        gan = make_gan(resnet_config(jit=True, epsilon=1e-3))
    data = tf.data.Dataset.from_tensor_slices(real_images(16))
    data = data.batch(8, drop_remainder=True)
    gan.fit(data, epochs=1, verbose=0, shuffle=False)
    np.savez(path, **state(gan))


@pytest.mark.slow
def test_two_devices_agree_with_one(tmp_path):
    states = []
    for devices in (1, 2):
        path = tmp_path / f"{devices}.npz"
        result = subprocess.run(
            [sys.executable, "-c", SEVERAL_DEVICES, str(path), str(devices)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        states.append(dict(np.load(path)))
    one, two = states
    assert one.keys() == two.keys()
    for path in one:
        np.testing.assert_allclose(one[path], two[path], atol=5e-5)


# === A run ===


@pytest.mark.slow
def test_from_training_to_an_export(tmp_path):
    from serving.export import export
    from serving.servable import Servable

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (21, 12, 12, 3), "uint8")
    config = resnet_config(steps=2)
    assert train(config, images, tmp_path / "run", "noise") == 0
    assert train(config, images, tmp_path / "run", "noise") == 0
    generator = load_generator(tmp_path / "run")
    assert type(generator) is ResNetGenerator
    shown = generate(generator, [0, 5, 9])
    assert shown.shape == (3, 12, 12, 3)
    version = export(tmp_path / "run", tmp_path / "models" / "tiny")
    z = np.float32(rng.standard_normal((3, 5)))
    with contextlib.closing(Servable(version)) as servable:
        signature = servable.signatures["serving_default"]
        images = servable.run(signature, {"latents": z})["images"]
    np.testing.assert_allclose(images, np.clip(generator(z), -1, 1), atol=1e-5)


# === Memory ===

# GiB that XLA lays out for the two updates, as `python -m
# transgan_tf.benchmark_layout --preset=cifar10_resnet` printed.
LAID_OUT = {
    "plain": (0.48, 0.64),
    "bfloat16": (0.42, 0.64),
    "rematerialized": (0.26, 0.54),
}


@pytest.mark.parametrize("case", LAID_OUT)
def test_the_estimate_is_near_what_xla_lays_out(case):
    from transgan_tf.benchmark_layout import Arguments

    memory = training_memory(Arguments("cifar10_resnet").config(case))
    laid_out = [gib * 2**30 for gib in LAID_OUT[case]]
    largest = memory.on_device - memory.weights
    assert largest == pytest.approx(max(laid_out), rel=0.25)
    assert memory.activations == pytest.approx(sum(laid_out), rel=0.25)


# GiB of a whole process, 0.7 of them with TensorFlow alone, as `python -m
# transgan_tf.benchmark_memory` showed.
RESIDENT = {
    ("mnist_resnet", 16, True): 0.98,
    ("cifar10_resnet", 16, True): 1.46,
    ("cifar10_resnet", 16, False): 1.19,
    ("cifar10_resnet", 64, False): 1.99,
}


@pytest.mark.parametrize(("name", "batch_size", "jit"), RESIDENT)
def test_the_estimate_is_near_what_a_process_takes(name, batch_size, jit):
    from transgan_tf.benchmark_memory import Arguments

    config = Arguments(name, batch_size, jit=jit).config("plain")
    measured = RESIDENT[name, batch_size, jit] * 2**30
    assert training_memory(config).total == pytest.approx(measured, rel=0.25)


def test_kept_bytes_by_hand():
    config = resnet_config(batch_size=1, generator_batch_factor=1, jit=False)
    # Of the larger resolution: 3 of 6, 6 of 5, twice 12 of 5.
    drawn = 9 * 6 + 36 * 5 + 2 * 144 * 5
    judged = 144 * 5 + 36 * 7 + 9 * 7
    memory = training_memory(config)
    assert memory.generator == pytest.approx(4 * 7 * (drawn + judged), rel=1e-3)
    assert memory.discriminator == pytest.approx(4 * 7 * 3 * judged, rel=1e-3)
    recomputed = config.override(["training.rematerialize=true"])
    memory = training_memory(recomputed)
    kept, largest = 36 * 5 + 2 * 9 * 7, 144 * 5
    expected = 4 * (3 * 1.9 * kept + 2.5 * 7 * largest)
    assert memory.discriminator == pytest.approx(expected, rel=1e-3)


def test_fields_survive_a_round_trip():
    config = resnet_config()
    assert Config.from_json(config.to_json()) == config
    again = config.override(["generator.norm=none"])
    assert again.generator == dataclasses.replace(config.generator, norm="none")


# === The paper's Table 2 ===


def test_the_rows_of_table_2():
    arguments = ablate.Arguments(
        table=2, steps=7, assignments=("training.batch_size=4",)
    )
    configs = arguments.configs()
    assert list(configs) == list(ablation.ARCHITECTURE_ROWS)
    policies = ["", ablation.DIFF_AUGMENT] * 2
    mnist, resnet = (
        get_preset(name).config for name in ("mnist", "mnist_resnet")
    )
    for config, network, policy in zip(
        configs.values(), (mnist, mnist, resnet, resnet), policies, strict=True
    ):
        assert config.generator == network.generator
        assert config.discriminator == network.discriminator
        expected = dataclasses.replace(
            mnist.training,
            steps=7,
            batch_size=4,
            augmentation=policy,
            generator_learning_rate=5e-4,
            discriminator_learning_rate=5e-4,
        )
        assert config.training == expected
    assert len(arguments.cells(configs)) == 4 * 3
    titles = [ablation.title(row, config) for row, config in configs.items()]
    assert titles == [
        "transformer, not augmented",
        "transformer, with translation,cutout,color",
        "ResNet, not augmented",
        "ResNet, with translation,cutout,color",
    ]


def test_an_augmented_preset_keeps_its_policy():
    rows = ablate.Arguments(table=2, preset="cifar10").configs()
    resnet = rows["resnet_augmented"]
    assert resnet.preset == "cifar10_resnet"
    assert resnet.training == get_preset("cifar10").config.training
    assert rows["transformer"].training.augmentation == ""
    # Scored once, at the end, as the preset is not while training.
    assert resnet.evaluation.every_images == 500_000 * 4 * 64


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--preset=stl10"], "as mnist and cifar10 do: there is no stl10_resn"),
        (["--rows", "grid"], "--rows of table 2 must be one of transformer, "),
        (["--set=generator.heads=1"], "generator.heads must be left out in a"),
    ],
)
def test_mistakes_in_table_2_get_one_sentence(flags, sentence, capsys):
    assert ablate.main(["--table=2", "--dry_run", *flags]) == 1
    assert sentence in capsys.readouterr().err
