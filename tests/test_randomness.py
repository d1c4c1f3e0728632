"""Stateless draws: the same numbers however a batch is split."""

import numpy as np
import pytest
import tensorflow as tf

from transgan_tf.randomness import Draws
from transgan_tf.randomness import _whole_numbers
from transgan_tf.randomness import fold_in
from transgan_tf.randomness import latents
from transgan_tf.randomness import root_seed

KINDS = {
    "normal": lambda draws: draws.normal(3, 5),
    "uniform": lambda draws: draws.uniform(2, low=-1.0, high=4.0),
    "integers": lambda draws: draws.integers(-7, 90),
    "folded": lambda draws: draws.fold_in(3).normal(2),
}
many = pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS)


def draws(seed=5, size=7, **kwargs):
    return Draws(root_seed(seed), size, **kwargs)


@many
def test_rows_of_a_split_batch_are_the_whole_batchs(draw):
    whole = draw(draws()).numpy()
    assert len(np.unique(whole, axis=0)) > 1
    for start, size in ((0, 2), (2, 1), (3, 4), (0, 7)):
        part = draw(draws(size=size, start=start, total=7)).numpy()
        assert (part == whole[start : start + size]).all()
    # The place may be a tensor, as it is for a replica in a graph.
    spec = [tf.TensorSpec((), tf.int32)]
    graph = tf.function(
        lambda start: draw(draws(size=2, start=start, total=7)),
        input_signature=spec,
    )
    assert (graph(tf.constant(4)).numpy() == whole[4:6]).all()


@many
def test_xla_draws_the_same(draw):
    # An argument, since a constant seed's draws are folded by the kernels.
    def own(seed):
        return draw(Draws(seed, 7))

    seed = draws().fold_in(3).seed
    compiled = tf.function(own, jit_compile=True)(seed)
    np.testing.assert_allclose(own(seed), compiled, rtol=2e-5, atol=1e-6)


def test_shared_draws_do_not_depend_on_the_rows():
    one = draws()
    part = draws(size=2, start=4, total=7)
    assert one.shared_uniform() == part.shared_uniform()
    assert one.shared_integer(0, 1000) == part.shared_integer(0, 1000)
    assert one.shared_uniform().shape == ()


def test_folding_in_is_independent_and_repeatable():
    size = 20_000
    source = draws(size=size)
    purposes = [source.fold_in(n).normal().numpy() for n in (0, 1, 2)]
    purposes.append(source.normal().numpy())
    purposes.append(source.fold_in(1).fold_in(0).normal().numpy())
    purposes.append(source.fold_in(0).fold_in(1).normal().numpy())
    purposes.append(draws(6, size).normal().numpy())
    correlation = np.corrcoef(purposes) - np.eye(len(purposes))
    assert np.abs(correlation).max() < 5 / np.sqrt(size)
    assert (purposes[1] == draws(size=size).fold_in(1).normal().numpy()).all()
    step = tf.constant(3, tf.int64)
    assert (
        (fold_in(root_seed(1), step) == fold_in(root_seed(1), 3)).numpy().all()
    )


def test_root_seeds_differ():
    seeds = [0, 1, 2**31 - 1, 2**31, 2**32 + 1, 2**40, 2**61]
    keys = {tuple(root_seed(seed).numpy()) for seed in seeds}
    assert len(keys) == len(seeds)


def test_distributions():
    source = draws(size=50_000)
    normal = source.normal().numpy().astype("float64")
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.015
    uniform = source.uniform(low=-1.0, high=4.0).numpy()
    assert -1 <= uniform.min() < -0.99 and 3.99 < uniform.max() < 4
    counts, _ = np.histogram(uniform, bins=10, range=(-1, 4))
    # 5000 each, with deviation 67.
    assert np.abs(counts - 5000).max() < 5 * 67


def test_integers_reach_both_ends_evenly():
    numbers = draws(size=50_000).integers(-2, 3).numpy()
    assert numbers.dtype == np.int32
    values, counts = np.unique(numbers, return_counts=True)
    assert values.tolist() == [-2, -1, 0, 1, 2]
    assert np.abs(counts - 10_000).max() < 5 * 90
    shared = {int(draws(seed).shared_integer(4, 7)) for seed in range(40)}
    assert shared == {4, 5, 6}
    assert set(draws().integers(3, 4).numpy()) == {3}


# === Latents ===


def test_a_seeds_latent_is_the_same_in_any_batch():
    seeds = [3, -1, 2**31, 2**40 + 3, -(2**62), 0, 3]
    together = latents(seeds, 6).numpy()
    assert together.shape == (7, 6) and together.dtype == np.float32
    for number, seed in enumerate(seeds):
        assert (latents([seed], 6).numpy()[0] == together[number]).all()
    backwards = latents(seeds[::-1], 6).numpy()
    assert (backwards[::-1] == together).all()
    # Six different seeds, the last one repeated.
    assert len(np.unique(together, axis=0)) == 6


def test_xla_draws_the_same_latents():
    seeds = [3, -1, 2**31, -(2**40) - 3]
    compiled = tf.function(latents, jit_compile=True)(tf.constant(seeds), 5)
    np.testing.assert_allclose(compiled, latents(seeds, 5), rtol=2e-5)


def test_latents_are_independent_standard_normals():
    z = tf.function(latents)(tf.range(2000), 8).numpy().astype("float64")
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.02
    correlation = np.corrcoef(z.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)
    # Neighbouring seeds too.
    assert abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 5 / np.sqrt(2000)


def test_truncation_scales_each_latent():
    z = latents([1, 2, 3], 5).numpy()
    assert (latents([1, 2, 3], 5, 0.5).numpy() == 0.5 * z).all()
    each = latents([1, 2, 3], 5, [1.0, 0.5, 0.25]).numpy()
    assert (each == z * np.array([[1.0], [0.5], [0.25]])).all()


def test_no_latents():
    assert latents([], 5).shape == (0, 5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("seed", [[3, 5], [-7, 2**31 - 1]])
def test_draws_are_those_of_tensorflows_philox(seed, jit):
    def own(seed):
        bits = _whole_numbers(seed, (3, 5), tf.uint32)
        return bits, fold_in(seed, -9)

    bits, folded = tf.function(own, jit_compile=jit)(tf.constant(seed))
    expected = tf.random.stateless_uniform(
        (3, 5), seed, None, None, tf.uint32, alg="philox"
    )
    np.testing.assert_array_equal(bits, expected)
    expected = tf.random.fold_in(seed, -9, alg="philox")
    np.testing.assert_array_equal(folded, expected)
