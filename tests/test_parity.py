"""The authors' golden numbers: outputs, penalty, loss, gradient norms."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import authors
from transgan_tf.authors import discriminator_entries
from transgan_tf.authors import generator_entries
from transgan_tf.discriminator import Discriminator
from transgan_tf.generator import Generator
from transgan_tf.losses import drift
from transgan_tf.losses import get_loss
from transgan_tf.losses import interpolated_penalty

CASES = ("cifar10", "stl10", "church256")
OUTPUT_TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-3


@functools.cache
def golden(name):
    """Returns a case, both networks with golden weights, and their names."""
    case = authors.load_case(name)
    generator_config, discriminator_config = authors.network_configs(name, case)
    generator = Generator(generator_config)
    generator.build((None, generator_config.latent_dim))
    discriminator = Discriminator(discriminator_config)
    size = discriminator_config.image_size
    discriminator.build((None, size, size, 3))
    authors.assign(
        generator,
        generator_entries(generator_config),
        authors.golden_weights(case["generator_parameters"]),
    )
    matched = authors.assign(
        discriminator,
        discriminator_entries(discriminator_config),
        authors.golden_weights(case["discriminator_parameters"]),
    )
    return case, generator, discriminator, matched


def image_of(case, size):
    """Returns the discriminator's input, NHWC; redrawn where not stored."""
    image = case["image"]
    if not image.size:
        rng = np.random.default_rng(8)
        image = np.tanh(rng.standard_normal((1, 3, size, size)))
    return image.astype("float32").transpose(0, 2, 3, 1)


def close_to_the_maximum(ours, theirs):
    gap = np.abs(np.asarray(ours) - theirs).max()
    assert gap <= OUTPUT_TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize("name", CASES)
def test_generator(name):
    case, generator, _, _ = golden(name)
    images = generator(case["z"]).numpy()
    close_to_the_maximum(images.transpose(0, 3, 1, 2), case["generated"])


@pytest.mark.parametrize("name", CASES)
def test_discriminator(name):
    case, _, discriminator, _ = golden(name)
    image = image_of(case, discriminator.config.image_size)
    close_to_the_maximum(discriminator(image), case["logits"])


def test_the_golden_latents_can_be_redrawn():
    case = golden("cifar10")[0]
    drawn = np.random.default_rng(7).standard_normal(case["z"].shape)
    assert (case["z"] == drawn.astype("float32")).all()


def discriminator_loss(name, jit):
    """Returns penalty, loss and the gradient by our weights' paths."""
    case, _, discriminator, _ = golden(name)
    real = image_of(case, discriminator.config.image_size)
    fake = case["generated"].transpose(0, 2, 3, 1)

    @tf.function(jit_compile=jit, autograph=False)
    def loss_and_gradients(weights):
        def judge(images):
            return discriminator.stateless_call(weights, [], images)[0]

        with tf.GradientTape() as tape:
            tape.watch(weights)
            real_logits, fake_logits = judge(real), judge(fake)
            penalty = interpolated_penalty(judge, real, fake, case["alpha"])
            loss = get_loss("wgan_gp").discriminator(real_logits, fake_logits)
            loss += 10.0 * penalty + 1e-3 * drift(real_logits)
        return penalty, loss, tape.gradient(loss, weights)

    variables = discriminator.trainable_variables
    weights = [tf.convert_to_tensor(v.value) for v in variables]
    penalty, loss, gradients = loss_and_gradients(weights)
    paths = [v.path.partition("/")[2] for v in variables]
    # Without noise, its strengths have no gradient.
    named = {
        path: tf.convert_to_tensor(gradient)
        for path, gradient in zip(paths, gradients, strict=True)
        if "noise" not in path
    }
    return penalty, loss, named


@pytest.mark.parametrize(
    "name, jit",
    [
        ("cifar10", False),
        ("stl10", False),
        pytest.param("cifar10", True, marks=pytest.mark.slow),
    ],
)
def test_penalty_loss_and_gradient_norms(name, jit):
    case, _, _, matched = golden(name)
    penalty, loss, gradients = discriminator_loss(name, jit)
    expected = {
        parameter: norm
        for parameter, norm in case["discriminator_gradient_norms"].items()
        if "noise_strength" not in parameter
    }
    norms = {
        parameter: np.linalg.norm(gradients[matched[parameter]])
        for parameter in expected
    }
    near = functools.partial(pytest.approx, rel=LOSS_TOLERANCE)
    assert float(penalty) == near(float(case["gradient_penalty"]))
    assert float(loss) == near(float(case["discriminator_loss"]))
    assert len(norms) > 40
    assert norms == near(expected)


def test_compiled_networks():
    case, generator, discriminator, _ = golden("stl10")
    images = tf.function(generator, jit_compile=True)(case["z"]).numpy()
    close_to_the_maximum(images.transpose(0, 3, 1, 2), case["generated"])
    image = image_of(case, 48)
    logits = tf.function(discriminator, jit_compile=True)(image)
    close_to_the_maximum(logits, case["logits"])
