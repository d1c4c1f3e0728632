"""From a source to a dataset to a run, by the command lines alone."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.photos import crop
from tests.photos import encoded
from tests.photos import write_folder
from tests.photos import write_lmdb
from transgan_tf.configs import Config
from transgan_tf.presets import get_preset

ROOT = Path(__file__).resolve().parents[1]


def command(module, folder, *flags):
    """Runs `python -m module` in a folder; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", module, *flags],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def tiny_church() -> list[str]:
    """Returns the flags that make the Church networks tiny, at 256 px."""
    config = get_preset("lsun_church").config
    changes = {
        "training.steps": 2,
        "training.batch_size": 2,
        "training.accumulation": 1,
        "training.generator_accumulation": 1,
        "training.n_critic": 1,
        "training.jit": "false",
        "training.sample_every_steps": 1000,
        "generator.latent_dim": 8,
    }
    for network in ("generator", "discriminator"):
        stages = getattr(config, network).stages
        for index, stage in enumerate(stages):
            path = f"{network}.stages.{index}"
            # Every width keeps its ratio to the others.
            changes[f"{path}.width"] = stage.width // 4
            changes[f"{path}.depth"] = 1
            changes[f"{path}.global_blocks"] = 0
    return [f"--set={name}={value}" for name, value in changes.items()]


# The preset mnist, as small as it goes, for few images.
TINY_MNIST = [
    "--preset=mnist",
    "--batch_size=2",
    "--set=training.jit=false",
    "--set=training.decay_start=1.0",
    "--set=training.sample_every_steps=1000",
    "--set=evaluation.every_images=0",
    "--set=generator.stages.0.depth=1",
    "--set=discriminator.stages.0.depth=1",
]


def prepare_photographs(folder, count):
    files = {f"{n}.jpg": encoded(crop(n, 40, 50), "JPEG") for n in range(count)}
    write_folder(folder / "photos", files)
    command(
        "pipeline.preprocess",
        folder,
        "--dataset=cats",
        "--source=photos/",
        "--image_size=28",
        "--channels=1",
        "--crop=center",
    )


def test_own_photographs_from_a_folder_to_one_step(tmp_path):
    prepare_photographs(tmp_path, 6)
    report = command("pipeline.verify", tmp_path, "--dataset_dir=data/cats")
    assert "data/cats is sound: 6 train" in report
    run = ["--dataset=cats", "--steps=1", *TINY_MNIST]
    told = command("transgan_tf.train", tmp_path, *run)
    assert "runs/cats starts, 6 images" in told
    checkpoints = tmp_path / "runs" / "cats" / "checkpoints"
    assert (checkpoints / "latest").read_text() == "step-000000001\n"


def test_the_tiny_church_is_still_the_churchs_shape():
    flags = [flag.removeprefix("--set=") for flag in tiny_church()]
    config = get_preset("lsun_church").config.override(flags)
    assert isinstance(config, Config)
    assert config.generator.image_size == 256


@pytest.mark.slow
def test_church_from_lmdb_to_two_steps(tmp_path):
    files = {
        f"{n:040x}": encoded(
            crop(n, 260, 300), "WEBP" if n % 3 else "JPEG", quality=80
        )
        for n in range(12)
    }
    write_lmdb(tmp_path / "church_outdoor_train_lmdb", files)
    command(
        "pipeline.preprocess",
        tmp_path,
        "--dataset=lsun_church",
        "--source=church_outdoor_train_lmdb",
    )
    report = command(
        "pipeline.verify", tmp_path, "--dataset_dir=data/lsun_church"
    )
    assert "data/lsun_church is sound: 12 train" in report
    told = command(
        "transgan_tf.train", tmp_path, "--dataset=lsun_church", *tiny_church()
    )
    assert "runs/lsun_church starts, 12 images" in told
    checkpoints = tmp_path / "runs" / "lsun_church" / "checkpoints"
    assert (checkpoints / "latest").read_text() == "step-000000002\n"


@pytest.mark.slow
def test_own_photographs_from_a_folder_to_samples(tmp_path):
    prepare_photographs(tmp_path, 20)
    run = ["--dataset=cats", "--steps=2", *TINY_MNIST]
    told = command("transgan_tf.train", tmp_path, *run)
    assert "runs/cats starts, 20 images" in told
    command(
        "transgan_tf.sample",
        tmp_path,
        "--run_dir=runs/cats",
        "--num_images=4",
        "--output=grid.png",
    )
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (56, 56)
