"""The training step: against a plain one, and however it is split."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.tiny import smallest_config
from transgan_tf.augment import DiffAugment
from transgan_tf.discriminator import Discriminator
from transgan_tf.gan import Purpose
from transgan_tf.gan import TransGAN
from transgan_tf.gan import make_gan
from transgan_tf.generator import Generator
from transgan_tf.losses import AdversarialLoss
from transgan_tf.optimizers import paper_adam
from transgan_tf.randomness import Draws
from transgan_tf.randomness import fold_in
from transgan_tf.randomness import root_seed

pytestmark = pytest.mark.usefixtures("freed_graphs")


def tiny_gan(**training):
    """Returns a compiled tiny `TransGAN`, the same weights at every call."""
    keras.utils.set_random_seed(5)
    gan = make_gan(smallest_config(**training))
    rng = np.random.default_rng(5)
    for network in (gan.generator, gan.discriminator):
        for weight in network.trainable_variables:
            weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    gan.ema_generator.set_weights(gan.generator.get_weights())
    return gan


def real_images(count=8, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, 12, 12, 3)
    return np.tanh(rng.standard_normal(shape)).astype("float32")


def state(gan):
    """Returns every weight of both networks and of the average."""
    networks = (gan.generator, gan.discriminator, gan.ema_generator)
    return [w for network in networks for w in network.get_weights()]


def run_steps(steps=1, **training):
    """Returns the state after some steps in graph mode, and the logs."""
    gan = tiny_gan(**training)
    step = tf.function(gan.train_step, autograph=False)
    for number in range(steps):
        logs = step(tf.constant(real_images(seed=number)))
    return state(gan), {k: float(v) for k, v in logs.items()}


def same(one, other, tolerance):
    for left, right in zip(one, other, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def distance(one, other):
    pairs = zip(one, other, strict=True)
    return np.linalg.norm([np.linalg.norm(a - b) for a, b in pairs])


# Adam without memory moves by the rate times the gradient's sign, which
# rounding can turn where a gradient is near 0: plain descent tells more.
def with_descent(gan, rate=0.1, accumulation=1, **changes):
    training = smallest_config().training
    gan.compile(
        keras.optimizers.SGD(rate),
        keras.optimizers.SGD(rate),
        augment=DiffAugment(training.augmentation),
        n_critic=2,
        drift_weight=1.0,
        accumulation=accumulation,
        generator_accumulation=accumulation,
        ema_images=100,
        ema_warmup=0.5,
        jit=False,
        **changes,
    )
    return gan


# === One step ===


def test_a_step_moves_both_networks_and_the_average():
    gan = tiny_gan(augmentation="")
    old, old_judge = (
        gan.generator.get_weights(),
        gan.discriminator.get_weights(),
    )
    logs = gan.train_step(tf.constant(real_images()))
    assert set(logs) == set(gan.trackers)
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert int(gan.step) == 1
    new = gan.generator.get_weights()
    for path, a, b in zip(gan.generator.weights, old, new, strict=True):
        assert np.abs(a - b).max() > 0, path
    for a, b in zip(old_judge, gan.discriminator.get_weights(), strict=True):
        # A key's bias and a shift of all scores would not move, ours all do.
        assert np.abs(a - b).max() > 0
    # Two updates on 4 images: 8 seen, a half-life of 4, that is one batch.
    for a, b, average in zip(
        old, new, gan.ema_generator.get_weights(), strict=True
    ):
        np.testing.assert_allclose(average, 0.5 * a + 0.5 * b, atol=1e-6)
    gan.train_step(tf.constant(real_images()))
    assert int(gan.step) == 2
    # Calling the model samples by the average.
    z = np.ones((3, 5), "float32")
    assert np.all(gan(z) == gan.ema_generator(z))
    assert np.abs(gan(z) - gan.generator(z)).max() > 1e-5


def plain_step(gan, real, n_critic, batch):
    """One step with plain tapes and NumPy's clip; returns gradients' norms.

    The recipe is `with_descent`'s: SGD 0.1, penalty 10, drift 1, clip 5.
    """
    generator, judge = gan.generator, gan.discriminator
    seed = fold_in(root_seed(0), 0)

    def judged(images, draws):
        images = gan.augment(images, draws.fold_in(0))
        return judge(images, draws=draws.fold_in(1))

    def generated(draws):
        z = draws.fold_in(Purpose.LATENTS).normal(5)
        return generator(z, draws=draws.fold_in(Purpose.GENERATOR_NOISE))

    def descend(tape, loss, network):
        weights = network.trainable_variables
        gradients = tape.gradient(loss, [w.value for w in weights])
        gradients = [tf.convert_to_tensor(g).numpy() for g in gradients]
        norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in gradients))
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.assign(weight - 0.1 * gradient * min(1, 5 / norm))
        return norm

    norms = []
    for update in range(n_critic):
        draws = Draws(fold_in(seed, update), batch)
        # Image j * n_critic + i is sample j of update i.
        x = tf.constant(real[update::n_critic])
        fake = generated(draws)
        with tf.GradientTape() as tape:
            real_logits = judged(x, draws.fold_in(Purpose.REAL))
            fake_logits = judged(fake, draws.fold_in(Purpose.FAKE))
            mix = draws.fold_in(Purpose.MIX).uniform(1, 1, 1)
            mixed = mix * x + (1 - mix) * fake
            with tf.GradientTape() as inner:
                inner.watch(mixed)
                logits = judged(mixed, draws.fold_in(Purpose.PENALTY))
            slope = inner.gradient(logits, mixed)
            slopes = tf.sqrt(tf.reduce_sum(slope**2, axis=(1, 2, 3)))
            loss = tf.reduce_mean(fake_logits) - tf.reduce_mean(real_logits)
            loss += 10 * tf.reduce_mean((slopes - 1) ** 2)
            loss += tf.reduce_mean(real_logits) ** 2
        norms.append(descend(tape, loss, judge))
    draws = Draws(fold_in(seed, n_critic), 2 * batch)
    with tf.GradientTape() as tape:
        logits = judged(generated(draws), draws.fold_in(Purpose.FAKE))
        loss = -tf.reduce_mean(logits)
    return norms, descend(tape, loss, generator)


def test_the_step_against_a_plain_one():
    gan, plain, real = with_descent(tiny_gan()), tiny_gan(), real_images()
    plain.augment = DiffAugment("translation,cutout,color")
    logs = tf.function(gan.train_step, autograph=False)(tf.constant(real))
    norms, generator_norm = plain_step(plain, real, n_critic=2, batch=4)
    for name in ("generator", "discriminator"):
        ours, theirs = getattr(gan, name), getattr(plain, name)
        same(ours.get_weights(), theirs.get_weights(), 2e-5)
    # The logs have the last update's norm, before the clip, which acted.
    near = {"rel": 1e-3}
    seen = float(logs["discriminator_gradient_norm"])
    assert seen == pytest.approx(norms[-1], **near)
    assert max(norms) > 5
    seen = float(logs["generator_gradient_norm"])
    assert seen == pytest.approx(generator_norm, **near)


def test_clipping_really_clips():
    gan, real = tiny_gan(), tf.constant(real_images())
    for clip in (1e-3, 1e3):
        rate = keras.optimizers.SGD(1.0)
        gan.compile(
            rate, keras.optimizers.SGD(1.0), clip_norm=clip, n_critic=1,
            jit=False,
        )  # fmt: skip
        before = gan.discriminator.get_weights()
        norm = gan.train_step(real)["discriminator_gradient_norm"]
        after = gan.discriminator.get_weights()
        moved = sum(
            np.sum((a.astype("float64") - b) ** 2)
            for a, b in zip(after, before, strict=True)
        )
        expected = min(clip, float(norm))
        assert np.sqrt(moved) == pytest.approx(expected, rel=1e-2)
        assert 1e-3 < float(norm) < 1e3
        for tracker in gan.trackers.values():
            tracker.reset_state()


# === However it is split, compiled or repeated ===


def descended(accumulation=1, jit=False):
    """Returns the state after one step of plain descent, and the logs."""
    gan = tiny_gan()
    gan.compile(
        keras.optimizers.SGD(0.1),
        keras.optimizers.SGD(0.1),
        augment=DiffAugment("translation,cutout,color"),
        n_critic=2,
        accumulation=accumulation,
        generator_accumulation=accumulation,
        ema_images=100,
        ema_warmup=0.5,
        drift_weight=1.0,
        jit=jit,
    )
    step = tf.function(gan.train_step, autograph=False)
    logs = step(tf.constant(real_images()))
    return state(gan), {k: float(v) for k, v in logs.items()}


@pytest.fixture(scope="module")
def whole():
    """One step in one piece, not compiled."""
    return descended()


@pytest.mark.parametrize(
    "change",
    [
        {"accumulation": 2},
        pytest.param({"jit": True}, marks=pytest.mark.slow),
        pytest.param({"accumulation": 2, "jit": True}, marks=pytest.mark.slow),
    ],
    ids=["parts", "xla", "parts xla"],
)
def test_how_it_is_run_changes_nothing(change, whole):
    (weights, logs), (other, other_logs) = whole, descended(**change)
    same(weights, other, 2e-5)
    for name, value in logs.items():
        assert other_logs[name] == pytest.approx(value, rel=1e-3, abs=1e-4)


def test_each_update_of_a_step_waits_for_the_one_before():
    gan = tiny_gan(n_critic=2)
    begun, made = [], []

    def noted(update):
        def function(*args):
            begun.append(tf.zeros(()).op)
            result = update(*args)
            made.append(result[1].op)
            return result

        return function

    gan._update_discriminator = noted(gan._update_discriminator)
    gan._update_generator = noted(gan._update_generator)
    step = tf.function(gan.train_step, autograph=False)
    step.get_concrete_function(tf.constant(real_images()))
    assert [list(op.control_inputs) for op in begun] == [
        [],
        [made[0]],
        [made[1]],
    ]


def test_a_batch_that_cannot_be_split_is_refused():
    gan = tiny_gan(accumulation=4)
    with pytest.raises(ValueError, match="batch of 3 cannot be split into 4"):
        gan.train_step(tf.constant(real_images(6)))


@pytest.mark.slow
def test_the_same_seed_is_bit_identical():
    first, logs = run_steps(2, n_critic=1)
    again, again_logs = run_steps(2, n_critic=1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert logs == again_logs
    _, other = run_steps(2, n_critic=1, seed=1)
    assert other["discriminator_loss"] != logs["discriminator_loss"]


SEVERAL_DEVICES = """
import json
import sys
import tensorflow as tf
path, devices, changes = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * devices
)
from tests import test_gan
test_gan.fit_and_save(path, devices, **changes)
"""


def fit_and_save(path, devices=1, precision="float32", **changes):
    """Fits two steps under a strategy and writes the state to a file."""
    strategy = tf.distribute.get_strategy()
    if devices > 1:
        names = [f"CPU:{number}" for number in range(devices)]
        strategy = tf.distribute.MirroredStrategy(names)
    assert strategy.num_replicas_in_sync == devices
    real = np.concatenate([real_images(8, seed) for seed in (0, 1)])
    data = tf.data.Dataset.from_tensor_slices(real)
    data = data.batch(8, drop_remainder=True)
    with strategy.scope():
        gan = with_descent(tiny_gan(precision=precision), **changes)
    for loss_scale in gan.loss_scales.values():
        # Low enough for every update to be made.
        loss_scale.scale.assign(16.0)
    gan.fit(data, epochs=1, verbose=0, shuffle=False)
    assert int(gan.step.numpy()) == 2
    np.savez(path, *state(gan))


def saved_state(path):
    with np.load(path) as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    """The state after two steps on one device."""
    path = tmp_path_factory.mktemp("devices") / "one.npz"
    fit_and_save(path)
    # It is not the state that they began with.
    moved = zip(saved_state(path), state(tiny_gan()), strict=True)
    assert max(np.abs(a - b).max() for a, b in moved) > 1e-2
    return saved_state(path)


def fit_apart(path, devices, changes):
    """Fits on several devices; in a process of its own, as they are set once.

    Returns:
        The state afterwards.
    """
    arguments = [str(path), str(devices), json.dumps(changes)]
    result = subprocess.run(
        [sys.executable, "-c", SEVERAL_DEVICES, *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return saved_state(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "changes"),
    [
        (2, {}),
        (2, {"accumulation": 2}),
        (4, {}),
        (1, {"accumulation": 4}),
        (2, {"rematerialized": ["generator.6", "discriminator.3"]}),
    ],
    ids=str,
)
def test_several_devices_agree_with_one(devices, changes, one_device, tmp_path):
    several = fit_apart(tmp_path / "several.npz", devices, changes)
    same(one_device, several, 5e-5)


@pytest.mark.slow
def test_a_strategy_of_one_device_trains(one_device):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    real = np.concatenate([real_images(8, seed) for seed in (0, 1)])
    data = tf.data.Dataset.from_tensor_slices(real)
    with strategy.scope():
        gan = with_descent(tiny_gan())
    data = data.batch(8, drop_remainder=True)
    gan.fit(data, epochs=1, verbose=0, shuffle=False)
    same(one_device, state(gan), 5e-5)


@pytest.mark.slow
def test_several_devices_agree_in_float16(tmp_path):
    half = {"precision": "float16"}
    fit_and_save(tmp_path / "one.npz", **half)
    one = saved_state(tmp_path / "one.npz")
    two = fit_apart(tmp_path / "two.npz", 2, half)
    # Half precision rounds each device's sum over its samples: 3 digits.
    assert distance(one, two) < 0.01 * distance(one, state(tiny_gan(**half)))


# === compile ===


def test_own_optimizers_and_loss_pass_through():
    gan = tiny_gan()
    mine = AdversarialLoss(
        lambda real, fake: 3.0 * tf.reduce_mean(fake - real),
        lambda fake: 7.0 + 0.0 * tf.reduce_mean(fake),
    )
    optimizers = keras.optimizers.SGD(0.5), keras.optimizers.RMSprop(1e-3)
    gan.compile(*optimizers, loss=mine, n_critic=1, jit=False)
    assert gan.generator_optimizer is optimizers[0]
    assert gan.discriminator_optimizer is optimizers[1]
    logs = gan.train_step((tf.constant(real_images(4)), "labels"))
    assert float(logs["generator_loss"]) == 7.0
    gap = float(logs["fake_logits"] - logs["real_logits"])
    assert float(logs["discriminator_loss"]) == pytest.approx(3 * gap, rel=1e-4)
    assert float(logs["penalty"]) == 0.0
    assert [int(o.iterations) for o in optimizers] == [1, 1]


@pytest.mark.parametrize("loss", ["hinge", "non_saturating_r1"])
def test_the_other_losses_train(loss):
    gan = tiny_gan(loss=loss)
    logs = gan.train_step(tf.constant(real_images()))
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert (float(logs["penalty"]) > 0) == (loss != "hinge")


def test_mixed_precision_trains():
    gan = tiny_gan(precision="bfloat16", augmentation="color")
    logs = gan.train_step(tf.constant(real_images()))
    exact = tiny_gan(augmentation="color")
    expected = exact.train_step(tf.constant(real_images()))
    for name, value in logs.items():
        assert float(value) == pytest.approx(
            float(expected[name]), rel=0.1, abs=0.1
        )
    assert all(np.isfinite(w).all() for w in state(gan))


def test_make_gan_passes_the_recipe_on():
    gan = make_gan(
        smallest_config(
            decay_start=0.5,
            steps=10,
            n_critic=3,
            generator_learning_rate=2e-3,
            beta_1=0.5,
            epsilon=1e-7,
            augmentation="color",
            ema_beta=0.25,
            clip_norm=2.0,
            seed=9,
        )
    )
    generator, judge = gan.generator_optimizer, gan.discriminator_optimizer
    # Constant, then linear to 0: 10 updates of one, 30 of the other.
    rate = generator._learning_rate
    values = [float(rate(step)) for step in (0, 5, 8, 10, 11)]
    assert values == pytest.approx([2e-3, 2e-3, 8e-4, 0.0, 0.0])
    values = [float(judge._learning_rate(step)) for step in (0, 15, 21, 30)]
    assert values == pytest.approx([1e-3, 1e-3, 6e-4, 0.0])
    assert (judge.beta_1, judge.beta_2, judge.epsilon) == (0.5, 0.99, 1e-7)
    assert (gan.n_critic, gan.ema_beta, gan.clip_norm) == (3, 0.25, 2.0)
    assert (gan.seed, gan.augment.names) == (9, ["color"])


def test_the_papers_adam_is_the_default():
    adam = paper_adam()
    assert float(adam.learning_rate) == pytest.approx(1e-4)
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.0, 0.99, 1e-8)
    config = smallest_config()
    gan = TransGAN(
        Generator(config.generator), Discriminator(config.discriminator)
    )
    gan.compile()
    assert gan.generator_optimizer.beta_2 == 0.99
    assert gan.adversarial_loss.has_drift and gan.n_critic == 4
    assert gan.augment.names == []
