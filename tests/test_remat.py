"""Recomputed blocks: the same gradients, twice differentiated, in less memory.

Run as a program it lets XLA compile a stack of blocks, see `compile_both`.
"""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.test_gan import real_images
from tests.test_gan import same
from tests.test_gan import state
from tests.tiny import smallest_config
from tests.tiny import tiny_config
from transgan_tf import remat
from transgan_tf.discriminator import Discriminator
from transgan_tf.gan import make_gan
from transgan_tf.generator import Generator
from transgan_tf.layers import TransformerBlock

ROOT = Path(__file__).resolve().parents[1]


def stack(*norms, width=6, window=3):
    """Returns blocks as one layer, and weights that are not the initial."""
    keras.utils.set_random_seed(5)
    blocks = [
        TransformerBlock(2, window, mlp_ratio=2, norm=norm) for norm in norms
    ]
    shape = (None, window**2, width)
    for block in blocks:
        block.build(shape)
    whole = keras.Sequential(blocks)
    whole.build(shape)
    rng = np.random.default_rng(5)
    weights = [
        tf.constant(w + 0.3 * rng.standard_normal(w.shape), tf.float32)
        for w in whole.get_weights()
    ]
    return whole, weights


def penalized(whole, weights, x, recomputed):
    """Returns gradients of a function and of its gradient's norm."""

    def energy(x):
        with keras.StatelessScope(
            zip(whole.trainable_variables, weights, strict=True)
        ):
            for block in whole.layers:
                x = remat.call_layer(block, x)
        return tf.reduce_sum(tf.sin(x))

    with remat.recomputing() if recomputed else nullcontext():
        with tf.GradientTape() as outer:
            outer.watch([x, *weights])
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = energy(x)
            with remat.inputs_alone():
                slopes = inner.gradient(value, x)
            norms = tf.sqrt(tf.reduce_sum(slopes**2, axis=(1, 2)))
            loss = value + tf.reduce_mean((norms - 1.0) ** 2)
        gradients = outer.gradient(loss, [x, *weights])
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def function_of(whole, recomputed, jit):
    def body(weights, x):
        return penalized(whole, weights, x, recomputed)

    return tf.function(body, jit_compile=jit, autograph=False)


# === The same gradients ===


@pytest.fixture(scope="module")
def small():
    whole, weights = stack("layer_norm", "token_scaling")
    rng = np.random.default_rng(1)
    x = tf.constant(rng.standard_normal((2, 9, 6)), tf.float32)
    expected = function_of(whole, recomputed=False, jit=False)(weights, x)
    return whole, weights, x, expected


def test_gradients_with_second_derivatives(small):
    whole, weights, x, expected = small
    found = function_of(whole, recomputed=True, jit=False)(weights, x)
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        assert scale > 0
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * scale)


def test_a_third_derivative():
    def cube(inputs, weights):
        return [weights[0] * inputs[0] ** 3]

    def slope(x, times):
        if times == 0:
            return remat._recomputed(cube, [x], [weight])[0]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = slope(x, times - 1)
        return tape.gradient(y, x)

    weight = tf.constant([2.0, 3.0])
    x = tf.constant([5.0, 7.0])
    for times, expected in ((1, [150, 441]), (2, [60, 126]), (3, [12, 18])):
        np.testing.assert_allclose(slope(x, times), expected)


def test_what_is_not_finite_stays_so():
    bad = remat._held([tf.ones(2)], tf.constant([float("nan"), 1.0]))[0]
    assert np.isnan(bad).all()
    large = remat._held([tf.ones(2)], tf.constant([float("inf"), 1.0]))[0]
    assert np.all(large == 1.0)


def test_without_the_scope_it_is_a_plain_call():
    assert remat.call_layer(abs, -3) == 3


def test_the_stages_that_are_named_are_recomputed(monkeypatch):
    config = tiny_config(rematerialize=True)
    chosen = ["generator.12", "discriminator.6", "discriminator.3"]
    names = ",".join(chosen)
    some = config.override([f"training.rematerialize_stages={names}"])
    assert recomputed_blocks(config, monkeypatch) == 3 + 3 + 1
    # One in 12 x 12, two in 6 x 6, one in 3 x 3 and the CLS token's.
    assert recomputed_blocks(some, monkeypatch) == 1 + 2 + 1 + 1
    off = config.override(["training.rematerialize=false"])
    assert recomputed_blocks(off, monkeypatch) == 0


def recomputed_blocks(config, monkeypatch):
    """Returns how many blocks one pass of both networks recomputes."""
    calls = []

    def noted(function, inputs, weights):
        calls.append(inputs)
        return function(inputs, weights)

    monkeypatch.setattr(remat, "_recomputed", noted)
    for network, x in (
        (Generator(config.generator), tf.zeros((1, 5))),
        (Discriminator(config.discriminator), tf.zeros((1, 12, 12, 3))),
    ):
        network.build(x.shape)
        weights = [tf.convert_to_tensor(v) for v in network.trainable_variables]
        with remat.recomputing(config.rematerialized_stages()):
            network.stateless_call(weights, [], x)
    return len(calls)


# === Whole steps ===

RECIPE = {"n_critic": 1, "drift_weight": 1.0}
SHORT = {"accumulation": 2, "generator_accumulation": 2}


def step(**training):
    """Returns the state after one step of plain descent, and the logs."""
    keras.utils.set_random_seed(5)
    gan = make_gan(smallest_config(**RECIPE | training))
    # Adam would hide a gradient's size.
    for name in ("generator", "discriminator"):
        descent = keras.optimizers.SGD(0.1)
        descent.build(getattr(gan, name).trainable_variables)
        setattr(gan, f"{name}_optimizer", descent)
    logs = gan.train_step(tf.constant(real_images(4)))
    return state(gan), {name: float(value) for name, value in logs.items()}


@pytest.fixture(scope="module")
def plain_step():
    return step()


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [
        SHORT,
        {"jit": True},
        SHORT | {"jit": True},
        {"rematerialize_stages": "discriminator.3"},
    ],
    ids=["parts", "xla", "parts xla", "one stage"],
)
def test_recomputed_steps(training, plain_step):
    weights, logs = plain_step
    other, other_logs = step(rematerialize=True, **training)
    same(weights, other, 2e-5)
    for name, value in logs.items():
        assert other_logs[name] == pytest.approx(value, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_recomputed_steps_in_half_precision(precision):
    half = {"precision": precision, "augmentation": "color"}
    (_, logs), (_, other) = step(**half), step(**half, rematerialize=True)
    for name, value in logs.items():
        assert other[name] == pytest.approx(value, rel=0.02, abs=0.02)


# === Less memory ===


def compile_both(path):
    """Saves the gradients of three blocks on 64 tokens, plain and recomputed.

    XLA, as it compiles them, writes down how it lays out their memory.
    """
    whole, weights = stack(*["layer_norm"] * 3, width=32, window=8)
    x = tf.random.stateless_normal((8, 64, 32), (1, 2))
    for number, recomputed in enumerate((False, True)):
        gradients = function_of(whole, recomputed, jit=True)(weights, x)
        np.savez(f"{path}/{number}.npz", *gradients)


def temporary_bytes(assignment):
    """Returns what a function needs beside its inputs and outputs."""
    return sum(
        int(line.partition("size ")[2].partition(",")[0])
        for line in assignment.read_text().splitlines()
        if line.startswith("allocation ") and "preallocated-temp" in line
    )


@pytest.mark.slow
def test_compiled_gradients_are_the_same_in_less_memory(tmp_path):
    # A process of its own, since XLA reads its flags once.
    subprocess.run(
        [sys.executable, "-m", "tests.test_remat", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": f"--xla_dump_to={tmp_path}"},
        check=True,
        capture_output=True,
    )
    files = sorted(tmp_path.glob("*buffer-assignment.txt"))
    plain, recomputed = map(temporary_bytes, files)
    assert plain > 5_000_000
    assert recomputed < 0.6 * plain
    with np.load(tmp_path / "0.npz") as one, np.load(tmp_path / "1.npz") as two:
        for name in one.files:
            atol = 2e-5 * np.abs(one[name]).max()
            np.testing.assert_allclose(two[name], one[name], rtol=0, atol=atol)


if __name__ == "__main__":
    compile_both(sys.argv[1])
