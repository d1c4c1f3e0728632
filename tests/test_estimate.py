"""Parameters by formula against the built networks; memory estimates."""

import dataclasses

import pytest

from transgan_tf import benchmark_layout
from transgan_tf import benchmark_memory
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.estimate import training_memory
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names

SHUFFLE = "pixel_shuffle"

GENERATORS = {
    "one stage": GeneratorConfig((Stage(5, 8, 2),), latent_dim=3),
    "grey, no blocks": GeneratorConfig(
        (Stage(3, 16, 0), Stage(6, 4, 1, upsample=SHUFFLE)),
        channels=1,
        latent_dim=7,
    ),
    "scaled, noise, windows": GeneratorConfig(
        (
            Stage(4, 48, 1),
            Stage(8, 48, 2, window=4, upsample="bicubic"),
            Stage(16, 12, 3, window=2, global_blocks=1, upsample=SHUFFLE),
        ),
        heads=3,
        mlp_ratio=2,
        norm="token_scaling",
        attention_noise=True,
        latent_dim=11,
    ),
    "no relative position": GeneratorConfig(
        (Stage(4, 8, 3, window=2),), relative_position=False, latent_dim=5
    ),
    "axis above 5": GeneratorConfig(
        (Stage(5, 32, 1), Stage(10, 8, 2, window=5, upsample=SHUFFLE)),
        attention="axis",
        attention_above=5,
        latent_dim=3,
    ),
    "axis, no relative position": GeneratorConfig(
        (Stage(5, 8, 3),),
        relative_position=False,
        attention="axis",
        attention_above=0,
        latent_dim=3,
    ),
    "standard": GeneratorConfig(
        (Stage(6, 8, 2, window=2),),
        attention="standard",
        attention_above=0,
        latent_dim=3,
    ),
}
DISCRIMINATORS = {
    "one scale": DiscriminatorConfig((Stage(7, 8, 1),), image_size=21),
    "three scales, windows": DiscriminatorConfig(
        (
            Stage(12, 12, 3, window=4, global_blocks=1),
            Stage(6, 18, 1, window=3),
            Stage(3, 24, 2),
        ),
        channels=1,
        heads=3,
        attention_noise=True,
        image_size=24,
    ),
    "scaled, wide mlp": DiscriminatorConfig(
        (Stage(8, 8, 2), Stage(4, 20, 0)),
        norm="token_scaling",
        mlp_ratio=5,
        image_size=16,
    ),
    "no relative position": DiscriminatorConfig(
        (Stage(4, 8, 3, window=2),), relative_position=False, image_size=8
    ),
    "one scale, pooled, landmarks": DiscriminatorConfig(
        (Stage(6, 8, 2, window=3, global_blocks=1), Stage(3, 8, 1)),
        attention="nystrom",
        attention_above=3,
        landmarks=4,
        image_size=12,
        multi_scale=False,
    ),
}
# Parameters counted in the authors' code.
AUTHORS = {
    "cifar10": (83_312_495, 10_210_400),
    "stl10": (168_466_623, 10_341_536),
    "lsun_church": (205_291_952, 17_754_569),
}


def count(network):
    return sum(v.value.shape.num_elements() for v in network.trainable_weights)


def built_generator(config):
    from transgan_tf.generator import Generator

    network = Generator(config)
    network.build((None, config.latent_dim))
    return network


def built_discriminator(config):
    from transgan_tf.discriminator import Discriminator

    network = Discriminator(config)
    size = config.image_size
    network.build((None, size, size, config.channels))
    return network


@pytest.mark.parametrize("name", GENERATORS)
def test_generator_parameters(name):
    config = GENERATORS[name]
    assert generator_parameters(config) == count(built_generator(config))


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_parameters(name):
    config = DISCRIMINATORS[name]
    network = built_discriminator(config)
    assert discriminator_parameters(config) == count(network)


@pytest.mark.parametrize("name", AUTHORS)
def test_authors_parameters(name):
    config = get_preset(name).config
    assert AUTHORS[name] == (
        generator_parameters(config.generator),
        discriminator_parameters(config.discriminator),
    )


@pytest.mark.slow
def test_the_built_cifar10_networks():
    config = get_preset("cifar10").config
    assert AUTHORS["cifar10"] == (
        count(built_generator(config.generator)),
        count(built_discriminator(config.discriminator)),
    )


def test_table_6_has_the_parameters_that_hypergan_counts():
    config = get_preset("celeba_128").config
    assert generator_parameters(config.generator) == 151_512_455


# Small enough to count by hand: 4 x 4 tokens of width 4, one block each.
TINY = dataclasses.replace(
    get_preset("mnist").config,
    generator=GeneratorConfig((Stage(4, 4, 1),), latent_dim=1),
    discriminator=DiscriminatorConfig((Stage(4, 4, 1),), image_size=4),
)
# Tokens 16 * 4 * (2 + 16) float32 numbers, attention 16 * 4 * 16.
TINY_KEPT = (1152 + 1024) * 4


def tiny_memory(*assignments, replicas=1):
    fields = ("batch_size=8", "generator_batch_factor=1", *assignments)
    config = TINY.override([f"training.{field}" for field in fields])
    return training_memory(config, replicas)


def test_weights_by_hand():
    generator = generator_parameters(TINY.generator)
    discriminator = discriminator_parameters(TINY.discriminator)
    largest = max(generator, discriminator)
    numbers = 4 * generator + 3 * discriminator
    assert tiny_memory().weights == 4 * (numbers + largest)
    parts = ("accumulation=4", "generator_accumulation=2")
    # Those added up so far, and those of the micro-batch at hand.
    gradients = 2 * largest
    assert tiny_memory(*parts).weights == 4 * (numbers + gradients)


def test_activations_by_hand():
    whole = tiny_memory("generator_batch_factor=20")
    assert whole.generator == pytest.approx(1.45 * 320 * TINY_KEPT)
    assert whole.on_device == whole.weights + whole.generator
    # 160 images through both networks, 8 through the discriminator thrice.
    passes = 160 * 2 + 8 * 3
    assert whole.activations == pytest.approx(1.45 * passes * TINY_KEPT)
    half = tiny_memory("generator_batch_factor=20", "precision=bfloat16")
    expected = 1.45 * passes * (1152 * 2 + 1024 * 6)
    assert half.activations == pytest.approx(expected)
    # Without XLA the larger update's memory serves for both.
    graph = tiny_memory("generator_batch_factor=20", "jit=false")
    assert graph.activations == pytest.approx(1.8 * 160 * 2 * TINY_KEPT)
    # Where the discriminator's is the larger, the penalty's scores count.
    graph = tiny_memory("jit=false")
    expected = 8 * (1.8 * 3 * TINY_KEPT + 12 * 1024 * 4)
    assert graph.activations == pytest.approx(expected, rel=1e-4)


def test_recomputed_activations_by_hand():
    # The stage's tokens twice and the block's once; the rest is in the block.
    kept, again = 16 * 4 * 3 * 4, TINY_KEPT - 16 * 4 * 2 * 4
    found = tiny_memory("rematerialize=true").activations
    discriminator = 3 * kept + 2.5 * again
    generator = 2 * kept + again
    expected = 1.9 * 8 * (discriminator + generator)
    assert found == pytest.approx(expected, rel=1e-4)


def test_stages_that_are_recomputed_alone_by_hand():
    found = tiny_memory(
        "rematerialize=true", "rematerialize_stages=discriminator.4"
    ).activations
    kept, again = 16 * 4 * 3 * 4, TINY_KEPT - 16 * 4 * 2 * 4
    judged = 1.9 * (3 * kept + 2.5 * again)
    drawn = 1.45 * TINY_KEPT + 1.9 * (kept + again)
    assert found == pytest.approx(8 * (judged + drawn), rel=1e-4)


def test_the_program_grows_with_the_blocks():
    small, large = (
        training_memory(get_preset(name).config).program
        for name in ("mnist", "lsun_church")
    )
    assert small < large < 3 * small


def test_activations_shrink_with_replicas_and_micro_batches():
    whole = tiny_memory().activations
    parts = ("accumulation=2", "generator_accumulation=2")
    assert tiny_memory(*parts).activations == pytest.approx(whole / 2, rel=1e-4)
    shared = tiny_memory(replicas=4)
    assert shared.activations == pytest.approx(whole / 4, rel=1e-4)
    assert shared.weights == tiny_memory().weights


def test_a_loss_without_penalty_takes_less():
    with_penalty, without = tiny_memory(), tiny_memory("loss=hinge")
    assert without.activations < with_penalty.activations


# GiB that XLA lays out for the two updates of a micro-batch, as `python -m
# transgan_tf.benchmark_layout --preset=NAME` printed (TensorFlow 2.21).
LAID_OUT = {
    ("cifar10", None, "plain"): (4.72, 16.26),
    ("cifar10", None, "rematerialized"): (2.25, 6.63),
    ("cifar10", None, "both"): (1.70, 6.40),
    ("stl10", None, "plain"): (7.43, 39.02),
    ("stl10", None, "both"): (4.23, 15.98),
    ("celeba_64", None, "plain"): (30.24, 72.75),
    ("celeba_128", 4, "plain"): (12.83, 13.83),
    ("celeba_128", 4, "bfloat16"): (14.22, 15.89),
    ("celeba_128", 4, "rematerialized"): (7.53, 6.35),
    ("celeba_128", 4, "both"): (7.68, 6.72),
    ("celeba_hq", None, "plain"): (51.30, 127.50),
    ("lsun_church", None, "plain"): (51.30, 63.60),
}


@pytest.mark.parametrize(("name", "batch_size", "case"), LAID_OUT)
def test_estimates_are_near_what_xla_lays_out(name, batch_size, case):
    config = benchmark_layout.Arguments(name, batch_size).config(case)
    memory = training_memory(config)
    laid_out = [gib * 2**30 for gib in LAID_OUT[name, batch_size, case]]
    largest = memory.on_device - memory.weights
    assert largest == pytest.approx(max(laid_out), rel=0.25)
    assert memory.activations == pytest.approx(sum(laid_out), rel=0.35)


def test_half_precision_and_recomputation_as_recorded():
    plain, both = (
        LAID_OUT["celeba_128", 4, case] for case in ("plain", "both")
    )
    less = [1 - small / large for small, large in zip(both, plain, strict=True)]
    assert min(less) >= 0.4


# GiB of a whole process at the peak of its second step, as `python -m
# transgan_tf.benchmark_memory` showed on a CPU.
RESIDENT = {
    ("mnist", 16, True, "plain"): 1.14,
    ("cifar10", 4, True, "plain"): 5.1,
    ("cifar10", 4, True, "rematerialized"): 5.1,
    ("cifar10", 4, True, "accumulated"): 5.5,
    ("cifar10", 4, False, "plain"): 4.5,
    ("cifar10", 4, False, "rematerialized"): 3.8,
    ("cifar10", 4, False, "accumulated"): 4.0,
    ("cifar10", 16, False, "plain"): 8.7,
    ("cifar10", 16, False, "rematerialized"): 5.2,
    ("cifar10", 16, False, "accumulated"): 5.0,
    # Whose discriminator attends over 64 x 64 tokens at once.
    ("celeba_128", 1, False, "plain"): 12.0,
    ("celeba_128", 1, False, "rematerialized"): 9.1,
    ("celeba_128", 1, False, "both"): 8.7,
}


@pytest.mark.parametrize(("name", "batch_size", "jit", "case"), RESIDENT)
def test_estimates_are_near_what_a_process_takes(name, batch_size, jit, case):
    arguments = benchmark_memory.Arguments(name, batch_size, jit=jit)
    measured = RESIDENT[name, batch_size, jit, case] * 2**30
    total = training_memory(arguments.config(case)).total
    assert total == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("name", preset_names())
def test_total_is_the_sum(name):
    memory = training_memory(get_preset(name).config)
    parts = (memory.weights, memory.activations, memory.program)
    assert memory.total == sum(parts)
    assert min(parts) > 0
