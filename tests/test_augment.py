"""Differentiable augmentation: values, rules, rows, derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from transgan_tf import augment
from transgan_tf.augment import OPERATIONS
from transgan_tf.augment import DiffAugment
from transgan_tf.augment import shift
from transgan_tf.checked import ConfigError
from transgan_tf.randomness import Draws
from transgan_tf.randomness import root_seed

HEIGHT, WIDTH, CHANNELS = 10, 15, 3
EVERYTHING = ",".join(OPERATIONS)
each = pytest.mark.parametrize("name", OPERATIONS)


def images(count=4, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(0)
    shape = (count, height, width, CHANNELS)
    return tf.constant(rng.uniform(0.1, 1.0, shape), tf.float32)


def draws(seed=1, size=4, **kwargs):
    return Draws(root_seed(seed), size, **kwargs)


def cutting_seed(name="cutout"):
    """Returns a seed whose draws make a cut happen in an operation."""
    return next(
        seed
        for seed in range(1000)
        if np.any(OPERATIONS[name](images(), draws(seed)).numpy() == 0)
    )


# === Colour, by hand ===


def test_brightness():
    x, source = images().numpy(), draws()
    y = augment.random_brightness(x, source).numpy()
    added = y - x
    own = source.uniform(1, 1, 1, low=-0.5, high=0.5).numpy()
    np.testing.assert_allclose(added, np.broadcast_to(own, x.shape), atol=1e-6)
    assert len(np.unique(own)) == 4 and np.abs(own).max() <= 0.5


def test_saturation():
    x, source = images().numpy(), draws()
    y = augment.random_saturation(x, source).numpy()
    factor = source.uniform(1, 1, 1).numpy() * 2
    for b in range(4):
        grey = x[b].mean(axis=-1, keepdims=True)
        expected = grey + factor[b] * (x[b] - grey)
        np.testing.assert_allclose(y[b], expected, atol=1e-6)


def test_contrast():
    x, source = images().numpy(), draws()
    y = augment.random_contrast(x, source).numpy()
    factor = source.uniform(1, 1, 1).numpy() + 0.5
    for b in range(4):
        mean = x[b].mean()
        expected = mean + factor[b] * (x[b] - mean)
        np.testing.assert_allclose(y[b], expected, atol=1e-6)


def test_color_is_the_three_in_order():
    x, source = images(), draws()
    y = augment.random_brightness(x, source.fold_in(0))
    y = augment.random_saturation(y, source.fold_in(1))
    y = augment.random_contrast(y, source.fold_in(2))
    assert np.all(augment.random_color(x, source) == y)


# === Shifts ===


def shifted_by_loop(x, dy, dx):
    y = np.zeros_like(x)
    for b, row, column in np.ndindex(x.shape[:3]):
        i, j = row + dy[b], column + dx[b]
        if 0 <= i < x.shape[1] and 0 <= j < x.shape[2]:
            y[b, row, column] = x[b, i, j]
    return y


def test_shift_against_a_loop():
    x = images(5).numpy()
    dy, dx = np.array([0, 2, -1, 10, -3]), np.array([0, -4, 3, 1, -15])
    y = shift(x, tf.constant(dy, tf.int32), tf.constant(dx, tf.int32))
    assert np.all(y == shifted_by_loop(x, dy, dx))


def test_shift_has_the_gradient_of_a_gather():
    x, upstream = images(3), images(3, HEIGHT, WIDTH) ** 2
    dy, dx = tf.constant([2, -1, 0]), tf.constant([-4, 3, 15])

    def plain(x):
        x = augment._shift_axis(x, dy, axis=1)
        return augment._shift_axis(x, dx, axis=2)

    slopes = []
    for function in (plain, lambda x: shift(x, dy, dx)):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(upstream * function(x) ** 3)
            first = inner.gradient(loss, x)
            value = tf.reduce_sum(first**2)
        slopes.append((first, outer.gradient(value, x)))
    np.testing.assert_allclose(slopes[1][0], slopes[0][0], rtol=1e-6)
    np.testing.assert_allclose(slopes[1][1], slopes[0][1], rtol=1e-6)
    assert np.abs(slopes[0][1]).max() > 0


def test_translation_reaches_a_fifth_of_each_side():
    source = draws(size=600)
    x = images(600, 10, 14)
    y = augment.random_translation(x, source).numpy()
    # 2 of 10 rows, 3 of 14 columns (2.8, rounded).
    dy = source.fold_in(0).integers(-2, 3).numpy()
    dx = source.fold_in(1).integers(-3, 4).numpy()
    assert set(dy) == set(range(-2, 3)) and set(dx) == set(range(-3, 4))
    assert np.all(y == shifted_by_loop(x.numpy(), dy, dx))


# === Cuts ===


def test_covered_is_the_authors_clamped_range():
    for side, size in ((10, 5), (10, 4), (7, 7), (15, 1), (16, 28), (16, 21)):
        source = draws(size=200)
        covered = augment._covered(source, side, size).numpy()
        centres = source.integers(0, side + 1 - size % 2).numpy()
        assert {0, side - size % 2} <= set(centres)
        for row, centre in zip(covered, centres, strict=True):
            # grid + offset - size // 2, clamped to the image.
            indices = np.arange(size) + centre - size // 2
            expected = np.zeros(side, bool)
            expected[np.clip(indices, 0, side - 1)] = True
            assert (row == expected).all()


def test_cutout_blanks_one_box_of_half_the_sides():
    x, source = images().numpy(), draws(cutting_seed())
    y = augment.random_cutout(x, source).numpy()
    rows = augment._covered(source.fold_in(1), HEIGHT, 5).numpy()
    columns = augment._covered(source.fold_in(2), WIDTH, 8).numpy()
    box = rows[:, :, None] & columns[:, None, :]
    assert np.all(y[box] == 0)
    assert np.all(y[~box] == x[~box])
    # Places are drawn for each sample.
    assert len(np.unique(box, axis=0)) > 1


def spans(name, height, width, seeds=400):
    """Returns the largest cut height and width of each call with a cut."""
    x = tf.ones((8, height, width, 1))
    operation = OPERATIONS[name]
    cut = tf.function(lambda seed: operation(x, Draws(seed, 8)))
    found = []
    for seed in range(seeds):
        blank = cut(root_seed(seed)).numpy()[..., 0] == 0
        if blank.any():
            rows = blank.any(axis=2).sum(axis=1).max()
            found.append((rows, blank.any(axis=1).sum(axis=1).max()))
    return found


@pytest.mark.parametrize(
    "name, low, high",
    [
        # Half the sides, 10 and 15, rounded half up.
        ("cutout", (5, 8), (5, 8)),
        # From a fifth to seven tenths: 2 to 7 and 3 to 10.
        ("erase_ratio", (2, 3), (7, 10)),
    ],
)
def test_cuts_happen_to_three_calls_of_ten(name, low, high):
    found = spans(name, HEIGHT, WIDTH)
    # 120 of 400, deviation 9.2.
    assert abs(len(found) - 120) < 3.5 * 9.2
    sizes = np.array(found)
    # Among 8 samples some box lies (nearly) whole within the image.
    assert (sizes.max(axis=0) == high).all()
    assert (sizes.min(axis=0) <= low).all()
    if low != high:
        assert len(np.unique(sizes, axis=0)) > 20


def test_stl_erase_is_in_pixels():
    sizes = np.array(spans("stl_erase_ratio", 60, 80, seeds=200))
    # 20 to 50 and 20 to 60 pixels.
    assert 40 < sizes[:, 0].max() <= 50 and 50 < sizes[:, 1].max() <= 60
    assert sizes.min() < 24


@pytest.mark.parametrize("name", ["cutout", "erase_ratio", "stl_erase_ratio"])
def test_a_cut_is_for_the_whole_global_batch(name):
    source = draws(cutting_seed(name), size=64)
    blank = OPERATIONS[name](tf.ones((64, 10, 15, 1)), source).numpy() == 0
    assert blank.any(axis=(1, 2, 3)).all()


# === What holds for all ===


@pytest.mark.parametrize("policy", [*OPERATIONS, EVERYTHING])
def test_rows_of_a_split_batch_are_the_whole_batchs(policy):
    name = policy if policy in OPERATIONS else "cutout"
    seed = 0 if name in ("translation", "color") else cutting_seed(name)
    apply, x = DiffAugment(policy), images(6)
    source = draws(seed, size=6)
    if policy in OPERATIONS:
        apply = OPERATIONS[policy]
    whole = apply(x, source).numpy()
    assert np.abs(whole - x).max() > 0.05
    for start, size in ((0, 2), (2, 3), (5, 1)):
        part = draws(seed, size=size, start=start, total=6)
        y = apply(x[start : start + size], part).numpy()
        assert (y == whole[start : start + size]).all()


@each
def test_differentiable_twice(name):
    x = images(3)

    def squared_slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(OPERATIONS[name](x, draws(2, 3)) ** 3)
        return tf.reduce_sum(tape.gradient(loss, x) ** 2)

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = squared_slope(x)
    slope = tape.gradient(value, x)
    direction = images(3) - 0.5
    ahead = squared_slope(x + 1e-2 * direction)
    behind = squared_slope(x - 1e-2 * direction)
    expected = float(ahead - behind) / 2e-2
    assert float(tf.reduce_sum(slope * direction)) == pytest.approx(
        expected, rel=2e-3
    )


def test_xla_gives_the_same():
    x, seed = images(), cutting_seed("erase_ratio")
    source = draws(seed).fold_in(3)
    policy = DiffAugment("color,translation,cutout,erase_ratio")
    compiled = tf.function(lambda x: policy(x, source), jit_compile=True)
    np.testing.assert_allclose(compiled(x), policy(x, source), atol=1e-6)


def test_no_policy_is_the_identity():
    x = images()
    assert DiffAugment("")(x, draws()) is x
    assert DiffAugment()(x, draws()) is x


def test_a_policys_operations_run_in_order_with_their_own_draws():
    x, source = images(), draws()
    y = DiffAugment("color,translation,color")(x, source)
    expected = augment.random_color(x, source.fold_in(0))
    expected = augment.random_translation(expected, source.fold_in(1))
    expected = augment.random_color(expected, source.fold_in(2))
    assert np.all(y == expected)
    # Other draws, other images.
    other = DiffAugment("color,translation,color")(x, source.fold_in(9))
    assert np.abs(y - other).max() > 0.05


def test_an_unknown_operation_is_refused():
    with pytest.raises(ConfigError, match="got 'colour'; did you mean 'color'"):
        DiffAugment("translation,colour")
