"""The command lines as a user runs them: real processes, statuses, sentences.

Networks are made small by `--set`; what is tested is the way from the command
line to the files.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_features import Network
from tests.test_features import save
from transgan_tf import curves
from transgan_tf import sample
from transgan_tf import train
from transgan_tf.presets import get_preset

SMALL = (
    "generator.stages.0.depth=1",
    "generator.stages.1.depth=0",
    "generator.stages.2.depth=0",
    "discriminator.stages.0.depth=1",
    "training.n_critic=1",
    "training.decay_start=1",
    "training.batch_size=4",
    "training.jit=false",
    "training.log_every_steps=1",
    "evaluation.every_images=0",
)
SMALL_FLAGS = [f"--set={assignment}" for assignment in SMALL]


def command(module, *flags):
    return [sys.executable, "-m", f"transgan_tf.{module}", *map(str, flags)]


def run_process(module, *flags, cwd):
    """Runs a command in a folder of its own; returns the finished process."""
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    # As for a user, who has set no level of TensorFlow's log.
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.run(
        command(module, *flags),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder in which `train` has made two steps on the digits."""
    folder = tmp_path_factory.mktemp("user")
    done = run_process("train", "--steps=2", *SMALL_FLAGS, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "5000 images" in done.stdout
    return folder


def test_train_again_goes_on_and_shows_speed_losses_and_time_left(run):
    done = run_process("train", "--steps=3", *SMALL_FLAGS, cwd=run)
    assert done.returncode == 0, done.stderr
    assert "runs/mnist goes on at step 2" in done.stdout
    lines = (run / "runs/mnist/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    last = done.stderr.strip().splitlines()[-1]
    assert "step 3/3" in last
    assert "img" in last and "discriminator_loss=" in last
    assert "Traceback" not in done.stderr
    assert "cuda" not in done.stderr.lower()


def test_sample_writes_the_same_grid_again(run):
    for name in ("a.png", "b.png"):
        flags = ("--run_dir=runs/mnist", "--num_images=6", f"--output={name}")
        done = run_process("sample", *flags, cwd=run)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == name
    with Image.open(run / "a.png") as grid:
        assert grid.size == (3 * 28, 2 * 28)
        assert grid.mode == "L"
    assert (run / "a.png").read_bytes() == (run / "b.png").read_bytes()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_under_xla(tmp_path):
    flags = ("--steps=3", *SMALL_FLAGS, "--set=training.jit=true")
    archives = []
    for name in ("one", "other"):
        done = run_process("train", *flags, f"--run_dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / name / "checkpoints" / "step-000000003"
        archives.append(dict(np.load(folder / "state.npz")))
    one, other = archives
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], key)


def test_sample_writes_single_files_and_walks(run, monkeypatch):
    monkeypatch.chdir(run)
    flags = ["--run_dir=runs/mnist", "--num_images=3", "--seed=5"]
    assert sample.main([*flags, "--output_dir=single"]) == 0
    names = sorted(path.name for path in (run / "single").iterdir())
    assert names == [f"seed-{seed:09d}.png" for seed in (5, 6, 7)]
    walk = ["--interpolate", "--frames=4", "--output=walk.gif"]
    assert sample.main([*flags, *walk]) == 0
    with Image.open(run / "walk.gif") as animation:
        assert animation.n_frames == 12


@pytest.mark.slow
def test_a_folder_of_images_trains_end_to_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "cats" / "indoors"
    folder.mkdir(parents=True)
    for number in range(5):
        pixels = rng.integers(0, 256, (31, 45, 3), "uint8")
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    flags = ["--dataset=cats", "--preset=mnist", "--steps=1", *SMALL_FLAGS]
    assert train.main(flags) == 0
    assert (tmp_path / "runs/cats/samples/step-000000001.png").is_file()
    saved = json.loads((tmp_path / "runs/cats/config.json").read_text())
    assert saved["training"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_and_ends_training(tmp_path, number, status):
    flags = command("train", "--steps=100000", *SMALL_FLAGS)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(
        flags,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    metrics = tmp_path / "runs/mnist/metrics.jsonl"
    wait_for(lambda: metrics.is_file() and metrics.stat().st_size, process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status
    latest = (tmp_path / "runs/mnist/checkpoints/latest").read_text().strip()
    step = int(latest.removeprefix("step-"))
    assert f"interrupted and saved at step {step}" in output
    assert step < 100_000


def wait_for(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--dataset=lsun_church"],
            "python -m pipeline.preprocess --dataset=lsun_church",
        ),
        (["--dataset=lsun_churc"], "did you mean 'lsun_church'?"),
        (["--dataset=photos"], "the dataset photos needs --preset"),
        (["--preset=cifar"], "did you mean 'cifar10'?"),
        (
            ["--dataset=photos", "--preset=mnist"],
            "holds no PNG, JPEG, WebP, BMP or GIF file",
        ),
        (
            ["--set=generator.latent_dm=8"],
            "--set names no field: 'generator.latent_dm'; did you mean "
            "'latent_dim'?",
        ),
        (
            ["--set=generator.latent_dim=wide"],
            "generator.latent_dim must be a whole number, got 'wide'",
        ),
        (["--batch_size=0"], "training.batch_size must be at least 1, got 0"),
        (["--run_dir=thesis"], "holds something that is not a run"),
    ],
)
def test_mistakes_get_one_sentence(
    flags, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").write_text("years of work")
    assert train.main(flags) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_unknown_flags_are_bad_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--datset=mnist"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Perhaps you meant" in error
    assert "--dataset STR" in error


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--run_dir=nowhere"], "nowhere is not a run"),
        (["--num_images=0"], "--num_images must be at least 1, got 0"),
        (["--truncation=1.5"], "--truncation must be in (0, 1], got 1.5"),
        (["--output=grid.tiff"], "--output must name a .png"),
        (["--interpolate"], "--output must name a .gif or .mp4"),
        (["--checkpoint=best"], "'best': it has step-000000002"),
        (["--seed=-1"], "--seed must be in [0, "),
        (["--seed=99999999999999999999"], "--seed must be in [0, "),
        (
            ["--interpolate", "--output=a.gif", "--output_dir=b"],
            "--output_dir does not go with --interpolate",
        ),
    ],
)
def test_mistakes_in_sampling_get_one_sentence(flags, sentence, run, capsys):
    run_dir = f"--run_dir={run / 'runs/mnist'}"
    assert sample.main([run_dir, *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_dry_run_prints_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset=lsun_church", "--steps=7", "--dry_run"]
    assert train.main(flags) == 0
    output = capsys.readouterr().out
    assert "generator: 205,291,952 parameters" in output
    assert "discriminator: 17,754,569 parameters" in output
    assert "GiB" in output
    printed = json.loads(output[: output.rindex("}") + 1])
    assert printed["training"]["steps"] == 7
    expected = get_preset("lsun_church").config.override(["training.steps=7"])
    assert printed == json.loads(expected.to_json())
    assert not list(tmp_path.iterdir())


def test_runs_are_named_as_their_images(tmp_path, monkeypatch):
    (tmp_path / "album" / "sub").mkdir(parents=True)
    (tmp_path / "cats").symlink_to("album")
    monkeypatch.chdir(tmp_path / "album" / "sub")
    names = {"..": "album", ".": "sub", "../../cats": "cats", "mnist": "mnist"}
    for dataset, name in names.items():
        assert train.Arguments(dataset).run_folder() == Path("runs", name)


def test_a_run_is_scored_and_drawn(run, tmp_path):
    features = save(tmp_path / "net", Network())
    flags = ["--run_dir=runs/mnist", f"--features={features}"]
    for seed in (0, 7):
        more = ["--num_images=12", "--metrics=fid,is", f"--seed={seed}"]
        done = run_process("evaluate", *flags, *more, cwd=run)
        assert done.returncode == 0, done.stderr
        record = json.loads(done.stdout)
        assert record["step"] >= 2
        assert record["evaluation"]["protocol"]["seed"] == seed
        assert "Traceback" not in done.stderr
    done = run_process("evaluate", *flags, "--floor", cwd=run)
    (tmp_path / "floor.json").write_text(done.stdout)
    assert (
        curves.main(
            [
                f"--run_dir={run / 'runs/mnist'}",
                f"--floor={tmp_path / 'floor.json'}",
                f"--output={tmp_path / 'new' / 'curves.png'}",
            ]
        )
        == 0
    )
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        # A panel for each of two scores.
        assert picture.width > 2 * picture.height


def test_mistakes_in_drawing_get_one_sentence(tmp_path, run, capsys):
    run_dir = f"--run_dir={run / 'runs/mnist'}"
    unscored = tmp_path / "unscored"
    unscored.mkdir()
    config = (run / "runs/mnist/config.json").read_text()
    (unscored / "config.json").write_text(config)
    cases = {
        "must name a .png or .svg, got '.jpg'": [run_dir, "--output=a.jpg"],
        "has no scores": [f"--run_dir={unscored}"],
        "is not a run": [f"--run_dir={tmp_path}"],
    }
    for sentence, flags in cases.items():
        assert curves.main(flags) == 1
        error = capsys.readouterr().err.strip()
        assert sentence in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "module", ["train", "sample", "evaluate", "curves", "convert"]
)
def test_help_shows_commands_that_run(module, tmp_path):
    done = run_process(module, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"python -m transgan_tf.{module} --" in done.stdout
