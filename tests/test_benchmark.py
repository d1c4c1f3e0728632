"""The benchmark of a preset: what it measures, and what it prints."""

import json
import subprocess
import sys

import pytest
import tensorflow as tf

from transgan_tf import benchmark
from transgan_tf import benchmark_memory
from transgan_tf.flops import step_flops
from transgan_tf.presets import get_preset

ARGUMENTS = ["--dataset=mnist", "--batch_size=2", "--rounds=1", "--no_jit"]


def test_the_flags_change_the_configuration():
    arguments = benchmark.Arguments(
        batch_size=6,
        attention="axis",
        precision="bfloat16",
        jit=False,
        assignments=(
            "training.n_critic=3",
            "generator.attention_above=7",
        ),
    )
    config = arguments.config()
    training = config.training
    found = (training.batch_size, training.precision, training.jit)
    assert found == (6, "bfloat16", False)
    assert training.n_critic == 3
    assert config.generator.attention == config.discriminator.attention
    assert config.generator.attention == "axis"
    usual = benchmark.Arguments(batch_size=6).config()
    assert step_flops(config).sampling != step_flops(usual).sampling


def test_images_of_a_part():
    config = get_preset("cifar10").config.override(
        ["training.batch_size=6", "training.generator_batch_factor=3"]
    )
    # Of a step the real images of all its updates.
    expected = {"sampling": 6, "discriminator": 6, "generator": 18}
    expected["step"] = 6 * config.training.n_critic
    assert config.training.n_critic > 1
    for part, images in expected.items():
        assert benchmark.images_of(config, part) == images


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--attention=axis"], "--attention=axis changes no stage of mnist"),
        (["--rounds=0"], "--rounds must be positive, got 0"),
    ],
)
def test_mistakes_get_one_sentence(flags, sentence, capsys):
    assert benchmark.main(flags) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_what_is_measured_adds_up(capsys):
    assert benchmark.main([*ARGUMENTS, "--parts=sampling", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["generator_parameters"] == 332_167
    (name, part) = report["parts"].popitem()
    assert name == "sampling" and not report["parts"]
    config = benchmark.Arguments(batch_size=2).config()
    assert part["images_per_second"] == pytest.approx(2 / part["seconds"])
    assert part["flops"] == step_flops(config).sampling
    per_second = part["flops"] / part["seconds"]
    share = per_second / report["matmul_flops"]
    assert part["peak_share"] == pytest.approx(share)
    assert 0 < share < 1.5
    # The process's, with TensorFlow in it.
    assert 2**28 < report["peak_memory"] < 2**34


def test_the_table():
    part = {"seconds": 0.5, "flops": 12e9, "peak_share": 0.24}
    generator = part | {"images_per_second": 12.0}
    step = part | {"images_per_second": 24.0}
    report = {
        "dataset": "tiny",
        "batch_size": 3,
        "generator_batch_size": 6,
        "n_critic": 4,
        "attention": "grid",
        "precision": "float32",
        "jit": True,
        "generator_parameters": 12_345,
        "discriminator_parameters": 678,
        "matmul_flops": 1e11,
        "peak_memory": 2**31,
        "parts": {"generator": generator, "step": step},
    }
    text = benchmark.table(report)
    assert "with XLA: 12,345 + 678 parameters" in text
    assert "| generator update, 6 images | 0.5 | 12 | 0.24 | 12 |" in text
    assert "other | 0.5 | 12 | 0.24 | 24 |" in text
    assert "100 GFLOP/s" in text and "2.00 GiB" in text


@pytest.mark.slow
def test_the_command_measures_all_parts():
    command = [sys.executable, "-m", "transgan_tf.benchmark", *ARGUMENTS]
    printed = subprocess.check_output(command, text=True)
    for title in ("forward, 2", "tor update, 2", "rator update, 2", "step: 1"):
        assert title in printed


def test_a_gpus_memory_is_measured_where_there_is_one(monkeypatch):
    peaks = {"GPU:0": 70}

    def reset(device):
        peaks[device] = 0

    def info(device):
        return {"current": 3, "peak": peaks[device]}

    experimental = tf.config.experimental
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind])
    monkeypatch.setattr(experimental, "reset_memory_stats", reset)
    monkeypatch.setattr(experimental, "get_memory_info", info)
    assert benchmark_memory.device_peak() == 70
    benchmark_memory.reset_device_peak()
    assert benchmark_memory.device_peak() == 0


def test_without_a_gpu_it_is_the_processs():
    peak = benchmark_memory.device_peak()
    assert peak == benchmark_memory.resident("VmHWM") > 2**20
    benchmark_memory.reset_device_peak()
    assert benchmark_memory.device_peak() <= peak
