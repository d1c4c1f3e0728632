"""FLOPs by formula: against hand-computed ones and against the real graphs."""

import math

import pytest
import tensorflow as tf

from tests.tiny import tiny_config
from tests.tiny import tiny_discriminator
from tests.tiny import tiny_generator
from transgan_tf.discriminator import Discriminator
from transgan_tf.flops import Products
from transgan_tf.flops import discriminator_products
from transgan_tf.flops import generator_products
from transgan_tf.flops import step_flops
from transgan_tf.gan import make_gan
from transgan_tf.generator import Generator
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage
from transgan_tf.presets import get_preset
from transgan_tf.randomness import root_seed
from transgan_tf.splitting import read_weights

# One stage of 5 x 5 tokens of 6 channels in two blocks, heads of 2 channels.
ONE_STAGE = {"heads": 3, "mlp_ratio": 2}


def test_a_generator_by_hand():
    config = GeneratorConfig((Stage(5, 6, 2),), latent_dim=7, **ONE_STAGE)
    tokens = 25
    block = 2 * tokens * (6 * 18 + 6 * 6 + 6 * 12 + 12 * 6)
    weights = 2 * 7 * tokens * 6 + 2 * block + 2 * tokens * 6 * 3
    # Scores and values, 25 x 25 of them.
    attention = 2 * (2 * 2 * tokens * tokens * 6)
    assert generator_products(config) == Products(weights, attention)


def test_a_discriminator_by_hand():
    config = DiscriminatorConfig((Stage(5, 6, 1),), image_size=10, **ONE_STAGE)
    rows = 25 + 26  # The second block's with the CLS token.
    weights = 2 * 25 * 2 * 2 * 3 * 6 + 2 * 6
    weights += 2 * rows * (6 * 18 + 6 * 6 + 6 * 12 + 12 * 6)
    attention = 4 * 6 * (25**2 + 26**2)
    assert discriminator_products(config) == Products(weights, attention)


def test_a_step_by_hand():
    config = tiny_config(
        batch_size=4, generator_batch_factor=3, n_critic=2, penalty_weight=10.0
    )
    drawn = generator_products(config.generator)
    judged = discriminator_products(config.discriminator)
    made = drawn.weights + drawn.attention
    flops = step_flops(config)
    assert flops.sampling == 4 * made
    # Two passes with gradients, thrice a pass each; the penalty's pass, its
    # slopes, and the gradient of both.
    weights, attention = 6 + 1 + 1 + 4, 6 + 1 + 2 + 6
    update = made + weights * judged.weights + attention * judged.attention
    assert flops.discriminator == 4 * update
    update = 3 * made + 2 * judged.weights + 3 * judged.attention
    assert flops.generator == 12 * update
    assert flops.step == 2 * flops.discriminator + flops.generator
    hinge = step_flops(tiny_config(loss="hinge", batch_size=4))
    judged = 6 * (judged.weights + judged.attention)
    assert hinge.discriminator == 4 * (made + judged)


def products_of(graph):
    """Returns the FLOPs of the matrix products in a TensorFlow graph."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2", "BatchMatMulV3"):
            rows = operation.inputs[0].shape
            first = "adj_x" if "Batch" in operation.type else "transpose_a"
            inner = rows[-2] if operation.get_attr(first) else rows[-1]
            total += 2 * inner * math.prod(operation.outputs[0].shape)
    return total


def test_a_resnet_by_hand():
    convolutional = {"architecture": "resnet", "norm": "none"}
    config = GeneratorConfig(
        (Stage(6, 4, 1), Stage(12, 2, 1)),
        latent_dim=7,
        **convolutional,
    )
    weights = 2 * 7 * 36 * 4 + 2 * (2 * 36 * 9 * 4 * 4)
    weights += 2 * 144 * 9 * (4 * 2 + 2 * 2) + 2 * 36 * 4 * 2
    weights += 2 * 144 * 9 * 2 * 3
    assert generator_products(config) == Products(weights)
    config = DiscriminatorConfig(
        (Stage(5, 6, 1),), image_size=10, **convolutional
    )
    # Two convolutions of the image's resolution, the shortcut after pooling.
    weights = 2 * 100 * 9 * (3 * 6 + 6 * 6) + 2 * 25 * 3 * 6 + 2 * 6
    assert discriminator_products(config) == Products(weights)


GRIDS = ("grid", "standard", "axis", "nystrom")


@pytest.mark.parametrize("attention", GRIDS)
def test_passes_against_their_graphs(attention):
    # 36 tokens in both networks' replaced stages.
    replaced = {"attention": attention, "attention_above": 4, "landmarks": 9}
    stages = (
        Stage(3, 24, 1),
        Stage(6, 6, 2, window=2, upsample="pixel_shuffle"),
    )
    drawn = tiny_generator(stages=stages, **replaced)
    stages = (Stage(6, 9, 2, window=3), Stage(3, 15, 1))
    judged = tiny_discriminator(stages=stages, **replaced)
    for config, network, products, shape in (
        (drawn, Generator(drawn), generator_products, (2, 5)),
        (judged, Discriminator(judged), discriminator_products, (2, 12, 12, 3)),
    ):
        network.build(shape)
        graph = tf.function(network, autograph=False).get_concrete_function(
            tf.TensorSpec(shape)
        )
        expected = products(config)
        expected = 2 * (expected.weights + expected.attention)
        assert products_of(graph.graph) == expected, type(network)


def test_updates_against_their_graphs():
    # No gradients of latents and of images are taken, which the formula
    # counts: next to nothing in networks of a real size.
    config = get_preset("mnist").config.override(["training.jit=false"])
    gan = make_gan(config)
    weights = read_weights(gan.generator), read_weights(gan.discriminator)
    seed, start, batch = root_seed(0), tf.constant(0), 16
    images = tf.zeros((batch, 28, 28, 1))
    flops = step_flops(config)
    update = gan._discriminator_gradients.get_concrete_function(
        *weights, images, seed, start, batch, None, None
    )
    found = products_of(update.graph)
    assert found == pytest.approx(flops.discriminator, rel=0.02)
    update = gan._generator_gradients.get_concrete_function(
        *weights, seed, start, batch, batch, None
    )
    found = products_of(update.graph)
    assert found == pytest.approx(flops.generator, rel=0.02)
