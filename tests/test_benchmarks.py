"""The benchmark commands as processes: the tables that they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.presets import get_preset

pytestmark = pytest.mark.slow

# For those that compile a preset's networks, which takes minutes.
SMALLEST = """
import sys, types
from tests.tiny import smallest_config
from transgan_tf import {0}
preset = types.SimpleNamespace(config=smallest_config(steps=9))
{0}.get_preset = lambda name: preset
sys.exit({0}.main())
"""
NUMBER = r"(\d+\.\d+)"


def run_process(*words):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_how_long_checkpoints_take(tmp_path):
    module = "transgan_tf.benchmark_checkpoints"
    told = run_process("-m", module, "--preset=mnist", f"--folder={tmp_path}")
    config = get_preset("mnist").config
    # Both networks, the average, and Adam's two moments of each.
    numbers = 4 * generator_parameters(config.generator)
    numbers += 3 * discriminator_parameters(config.discriminator)
    found = re.fullmatch(
        rf"mnist: a state of {NUMBER} GiB\n"
        rf"training waits {NUMBER} s; writing beside it {NUMBER} s\n"
        r"below 2% of the time between checkpoints, every (\d+) steps, "
        r"if a step takes (\d+) ms or more; if writing held the steps up "
        r"altogether, (\d+) ms or more\n",
        told,
    )
    size, waited, written, every, *steps = map(float, found.groups())
    assert size == pytest.approx(4 * numbers / 2**30, abs=0.005)
    assert 0 <= waited < 60 and 0 <= written < 60
    assert every == config.training.checkpoint_every_steps
    # Milliseconds, of seconds that were rounded to 0.01 and to 0.1.
    waits = (waited, 0.005), (waited + written, 0.055)
    for milliseconds, (seconds, rounding) in zip(steps, waits, strict=True):
        expected, error = (1000 * s / 0.02 / every for s in (seconds, rounding))
        assert milliseconds == pytest.approx(expected, abs=error + 0.5)
    assert not list(tmp_path.iterdir())


def test_the_memory_that_xla_plans():
    flags = ["--batch_size=2048", "--cases", "plain", "rematerialized"]
    told = run_process("-c", SMALLEST.format("benchmark_layout"), *flags)
    _, _, *rows = told.splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [cell[1:3] for cell in cells] == [
        ["plain", "discriminator"],
        ["plain", "generator"],
        ["rematerialized", "discriminator"],
        ["rematerialized", "generator"],
    ]
    sizes, ratios, estimates = (
        [float(cell[column]) for cell in cells] for column in (3, 4, 5)
    )
    assert ratios[:2] == [1, 1]
    for number in (2, 3):
        ratio = sizes[number] / sizes[number - 2]
        assert ratios[number] == pytest.approx(ratio, rel=0.1)
    # The estimate is made for larger networks.
    for size, estimate in zip(sizes, estimates, strict=True):
        assert estimate / 4 < size < 4 * estimate


def test_what_a_second_device_costs():
    program = SMALLEST.format("benchmark_replicas")
    told = run_process("-c", program, "--steps=3")
    found = re.fullmatch(
        rf"one device +{NUMBER} ms a step\n"
        rf"two devices +{NUMBER} ms a step, {NUMBER} of it\n",
        told,
    )
    one, two, ratio = map(float, found.groups())
    assert one > 0 and two > 0
    assert ratio == pytest.approx(two / one, abs=0.01)
