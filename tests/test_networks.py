"""Generator and discriminator, built from the rows of a configuration."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import tiny_discriminator
from tests.tiny import tiny_generator
from transgan_tf.discriminator import Discriminator
from transgan_tf.generator import Generator
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage
from transgan_tf.randomness import Draws
from transgan_tf.randomness import root_seed
from transgan_tf.resnet import ResNetDiscriminator
from transgan_tf.resnet import ResNetGenerator

CUSTOM_GENERATOR = GeneratorConfig(
    (
        Stage(5, 32, 1),
        Stage(10, 8, 2, 5, 1, "pixel_shuffle"),
        Stage(20, 2, 1, 10, upsample="pixel_shuffle"),
    ),
    channels=1,
    heads=2,
    mlp_ratio=3,
    relative_position=False,
    latent_dim=7,
)
CUSTOM_DISCRIMINATOR = DiscriminatorConfig(
    (Stage(20, 4, 0), Stage(10, 6, 1), Stage(5, 14, 2)),
    channels=1,
    heads=2,
    mlp_ratio=3,
    norm="token_scaling",
    image_size=20,
)
SINGLE_SCALE = DiscriminatorConfig(
    (Stage(6, 10, 1, window=3), Stage(3, 10, 1)),
    heads=2,
    image_size=12,
    attention="nystrom",
    attention_above=3,
    landmarks=9,
    multi_scale=False,
)
RESNET_GENERATOR = GeneratorConfig(
    (Stage(5, 6, 1), Stage(10, 5, 1), Stage(20, 7, 2)),
    channels=1,
    latent_dim=7,
    output_activation="tanh",
    architecture="resnet",
)
RESNET_DISCRIMINATOR = DiscriminatorConfig(
    (Stage(10, 5, 2), Stage(5, 7, 1)),
    channels=1,
    norm="none",
    image_size=20,
    architecture="resnet",
)
CASES = {
    "generator": (Generator, tiny_generator()),
    "generator-noise": (Generator, tiny_generator(attention_noise=True)),
    "generator-custom": (Generator, CUSTOM_GENERATOR),
    "discriminator": (Discriminator, tiny_discriminator()),
    "discriminator-noise": (
        Discriminator,
        tiny_discriminator(attention_noise=True),
    ),
    "discriminator-custom": (Discriminator, CUSTOM_DISCRIMINATOR),
    "discriminator-single-scale": (Discriminator, SINGLE_SCALE),
    "resnet-generator": (ResNetGenerator, RESNET_GENERATOR),
    "resnet-discriminator": (ResNetDiscriminator, RESNET_DISCRIMINATOR),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def shapes(config):
    """Returns the shapes of one sample's input and output."""
    if isinstance(config, GeneratorConfig):
        side = config.image_size
        return (config.latent_dim,), (side, side, config.channels)
    side = config.image_size
    return (side, side, config.channels), (1,)


def inputs(config, batch=2):
    rng = np.random.default_rng(0)
    shape = (batch, *shapes(config)[0])
    return rng.standard_normal(shape).astype("float32")


def make(case, **kwargs):
    """Returns a network whose weights all do something."""
    network, config = case
    keras.utils.set_random_seed(0)
    network = network(config, **kwargs)
    network.build((None, *shapes(config)[0]))
    rng = np.random.default_rng(1)
    for weight in network.weights:
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    return network


@each
def test_symbolic_eager_and_compiled_calls_agree(case):
    network, config = make(case), case[1]
    x = inputs(config, 3)
    eager = network(x).numpy()
    shape = shapes(config)[1]
    assert eager.shape == (3, *shape) and eager.dtype == np.float32
    assert network.compute_output_shape((3, *x.shape[1:])) == (3, *shape)
    symbol = keras.Input(x.shape[1:])
    model = keras.Model(symbol, network(symbol))
    assert model.output_shape == (None, *shape)
    np.testing.assert_allclose(model(x), eager, atol=1e-4)
    compiled = tf.function(network, jit_compile=True)
    np.testing.assert_allclose(compiled(x), eager, atol=1e-4)
    # Each sample stands alone.
    np.testing.assert_allclose(network(x[1:2]), eager[1:2], atol=1e-4)
    assert np.abs(eager[0] - eager[1]).max() > 1e-3


@each
def test_config_round_trip(case):
    network, config = case
    first = network(config, name="mine")
    values = json.loads(json.dumps(first.get_config()))
    again = network.from_config(values)
    assert again.config == config and again.name == "mine"
    assert network(dataclasses.asdict(config)).config == config


@each
def test_saving(case, tmp_path):
    network, x = make(case), inputs(case[1])
    expected = network(x).numpy()
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    assert type(again) is case[0] and again.config == case[1]
    assert (again(x).numpy() == expected).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@each
def test_mixed_precision(case, policy):
    x = inputs(case[1])
    exact = make(case)(x).numpy()
    network = make(case, dtype=policy)
    y = network(x)
    assert y.dtype == tf.float32
    assert {weight.dtype for weight in network.weights} == {"float32"}
    tolerance = 0.03 if "bfloat" in policy else 0.005
    assert np.std(y - exact) < tolerance * np.std(exact) + 1e-3


def test_mixed_precision_reaches_the_matrix_products():
    network = make(CASES["generator"], dtype="mixed_float16")
    block = network.stages[0].blocks[0]
    assert block.attention.attention.qkv.compute_dtype == "float16"
    assert block.mlp_1.compute_dtype == "float16"
    table = block.attention.attention.relative_position
    assert table.compute_dtype == "float32"
    network = make(CASES["discriminator"], dtype="mixed_float16")
    assert network.stages[0].patches.compute_dtype == "float16"
    assert network.head.compute_dtype == "float32"


@each
def test_every_weight_has_a_gradient(case):
    network, config = make(case), case[1]
    noise = Draws(root_seed(3), 2) if config.attention_noise else None
    assert network.trainable_variables == network.weights
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(inputs(config), draws=noise) ** 2)
    weights = [weight.value for weight in network.weights]
    gradients = tape.gradient(loss, weights)
    for weight, gradient in zip(network.weights, gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path


@pytest.mark.parametrize("name", ["generator-noise", "discriminator-noise"])
def test_noise_only_with_draws(name):
    network, config = make(CASES[name]), CASES[name][1]
    x = inputs(config, 3)
    noisy = network(x, draws=Draws(root_seed(3), 3)).numpy()
    assert np.abs(noisy - network(x)).max() > 1e-3
    # The noise belongs to the sample, not to its place in the call.
    part = network(x[1:], draws=Draws(root_seed(3), 2, start=1, total=3))
    np.testing.assert_allclose(part, noisy[1:], atol=1e-5)


def test_each_block_has_noise_of_its_own(monkeypatch):
    network = make(CASES["discriminator-noise"])
    seeds = []
    original = Draws.normal

    def normal(self, *shape):
        seeds.append(tuple(self.seed.numpy()))
        return original(self, *shape)

    monkeypatch.setattr(Draws, "normal", normal)
    network(inputs(network.config), draws=Draws(root_seed(3), 2))
    # Two blocks, one block, the CLS token's block.
    assert len(seeds) == 4 == len(set(seeds))


# === Sizes by hand ===


def block_size(width, mlp_ratio, norm=True, table=0, noise=False):
    attention = 3 * width**2 + width**2 + width + table
    mlp = 2 * mlp_ratio * width**2 + mlp_ratio * width + width
    return attention + mlp + (4 * width if norm else 0) + noise


def test_generator_size():
    sizes = [
        # latent 5 -> 3*3 tokens of 24
        5 * 216 + 216,
        # position, and a block with 3 heads and a table for its window
        9 * 24 + block_size(24, 2, False, table=5**2 * 3),
        36 * 24 + block_size(24, 2, False, table=3**2 * 3),
        144 * 6 + block_size(6, 2, False, table=7**2 * 3),
        # to RGB
        6 * 3 + 3,
    ]
    assert generator_size(tiny_generator()) == sum(sizes)
    noisy = tiny_generator(attention_noise=True)
    assert generator_size(noisy) == sum(sizes) + 3


def generator_size(config):
    return make((Generator, config)).count_params()


def test_discriminator_size():
    sizes = [
        # patches of 2 px to 9, of 4 px to 6 channels
        2 * 2 * 3 * 9 + 9,
        4 * 4 * 3 * 6 + 6,
        # windows of 3, then the whole 6 x 6 map
        36 * 9 + block_size(9, 2, table=5**2 * 3),
        block_size(9, 2, table=11**2 * 3),
        9 * 15 + block_size(15, 2, table=5**2 * 3),
        # CLS token, its block without a table, norm, head
        15 + block_size(15, 2) + 2 * 15 + 15 + 1,
    ]
    network = make((Discriminator, tiny_discriminator()))
    assert network.count_params() == sum(sizes)
    # By hand, as the last block is: 3*225 + 225 + 15 + 900 + 30 + 15 + 60.
    assert block_size(15, 2) == 1920


# === What goes where ===


def test_generator_maps_tokens_row_by_row():
    # Without blocks an image is what its own tokens and positions make it.
    config = GeneratorConfig((Stage(3, 2, 0),), heads=1, latent_dim=5)
    network = make((Generator, config))
    z = inputs(config)
    tokens = network.from_latent(z).numpy().reshape(2, 9, 2)
    tokens = tokens + network.stages[0].position.embedding.numpy()
    expected = tokens @ network.to_image.kernel + network.to_image.bias
    images = network(z).numpy()
    for y, x in np.ndindex(3, 3):
        np.testing.assert_allclose(
            images[:, y, x], expected[:, 3 * y + x], atol=1e-6
        )


def test_an_output_activation_squashes_the_same_images():
    config = GeneratorConfig((Stage(3, 2, 0),), heads=1, latent_dim=5)
    plain = make((Generator, config))
    squashed = make(
        (Generator, dataclasses.replace(config, output_activation="tanh"))
    )
    squashed.set_weights(plain.get_weights())
    z = 9.0 * inputs(config)
    images = plain(z).numpy()
    assert np.abs(images).max() > 1
    np.testing.assert_allclose(squashed(z), np.tanh(images), atol=1e-6)


def test_discriminator_joins_pooled_tokens_then_patches():
    stages = (Stage(6, 4, 0), Stage(3, 7, 0))
    config = DiscriminatorConfig(stages, heads=1, image_size=12)
    network = make((Discriminator, config))
    images = inputs(config)
    first, second = network.stages
    x = first(images).numpy()
    expected = first.patches(images) + first.position.embedding
    np.testing.assert_allclose(x, expected, atol=1e-6)
    joined = second(images, x=x).numpy() - second.position.embedding.numpy()
    pooled = x.reshape(2, 3, 2, 3, 2, 4).mean(axis=(2, 4)).reshape(2, 9, 4)
    np.testing.assert_allclose(joined[..., :4], pooled, atol=1e-6)
    patches = second.patches(images)
    assert patches.shape == (2, 9, 3)
    np.testing.assert_allclose(joined[..., 4:], patches, atol=1e-6)


def test_discriminator_judges_the_cls_token_alone():
    network = make(CASES["discriminator"])
    seen = {}
    network.norm.call = lambda x: seen.setdefault("x", x)
    network(inputs(network.config))
    logits = seen["x"][:, 0] @ network.head.kernel + network.head.bias
    network = make(CASES["discriminator"])
    network.norm.call = lambda x: x
    np.testing.assert_allclose(
        network(inputs(network.config)), logits, atol=1e-5
    )


def test_the_heads_initialization():
    keras.utils.set_random_seed(0)
    discriminator = Discriminator(
        DiscriminatorConfig((Stage(2, 4000, 0),), image_size=2, heads=1)
    )
    discriminator.build((None, 2, 2, 3))
    assert not discriminator.head.bias.numpy().any()
    assert abs(discriminator.head.kernel.numpy().std() - 0.02) < 1e-3
    generator = Generator(
        GeneratorConfig((Stage(10, 40, 0),), latent_dim=4, heads=1)
    )
    generator.build((None, 4))
    kernel = generator.from_latent.kernel.numpy()
    assert 0.49 < np.abs(kernel).max() <= 0.5
    bias = generator.from_latent.bias.numpy()
    assert 0.49 < np.abs(bias).max() <= 0.5
    # Xavier for the 1 x 1 convolution, PyTorch's bound for its bias.
    kernel = generator.to_image.kernel.numpy()
    assert 0.9 < np.abs(kernel).max() / np.sqrt(6 / 43) <= 1
    assert np.abs(generator.to_image.bias.numpy()).max() <= 40**-0.5
