"""Whole runs: what they write, that they resume, that they stop well."""

import dataclasses
import fcntl
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.tiny import smallest_config
from transgan_tf import callbacks
from transgan_tf import fitting
from transgan_tf import runs
from transgan_tf import training
from transgan_tf.checked import ConfigError
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import load_config
from transgan_tf.checkpoints import load_generator
from transgan_tf.checkpoints import state
from transgan_tf.data import DataError
from transgan_tf.gan import TransGAN
from transgan_tf.gan import make_gan
from transgan_tf.runs import close_log
from transgan_tf.runs import open_run
from transgan_tf.stores import ArrayStore
from transgan_tf.workers import Workers

pytestmark = pytest.mark.usefixtures("freed_graphs")

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 12, 12, 3), "uint8")


def train(config, folder, images=IMAGES):
    return training.train(config, images, folder, "noise")


def run_config(**changes):
    periods = {
        "checkpoint_every_steps": 3,
        "log_every_steps": 2,
        "sample_every_steps": 3,
    }
    return smallest_config(**periods | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 5 steps, undisturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(run_config(steps=5), folder) == 0
    return folder


def read_metrics(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def untimed(line):
    """Returns a line of the metrics without its times."""
    times = ("images_per_second", "data_wait_share", "seconds_")
    return {k: v for k, v in line.items() if not k.startswith(times)}


def arrays_of(folder):
    newest = CheckpointFolder(folder / "checkpoints").latest()
    with np.load(newest / "state.npz") as archive:
        return dict(archive)


def test_a_run_writes_all_its_files(run):
    assert names(run) == {
        "checkpoints",
        "config.json",
        "log.txt",
        "metrics.jsonl",
        "samples",
        "tensorboard",
    }
    samples = sorted(path.name for path in (run / "samples").iterdir())
    assert samples == [f"step-{n:09d}.png" for n in (0, 3, 5)]
    with Image.open(run / "samples" / samples[0]) as grid:
        assert grid.size == (8 * 12, 8 * 12)
    kept = {f"step-{n:09d}" for n in (3, 5)}
    assert names(run / "checkpoints") == kept | {"latest"}


def test_curves_have_a_line_for_each_period(run):
    lines = read_metrics(run)
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert [line["images"] for line in lines] == [16, 32, 40]
    for line in lines:
        assert all(np.isfinite(value) for value in line.values())
        assert line["images_per_second"] > 0
        # D's loss is made of these.
        whole = line["fake_logits"] - line["real_logits"]
        whole += 10 * line["penalty"]
        assert line["discriminator_loss"] == pytest.approx(whole, abs=1e-3)


def test_tensorboard_has_curves_and_grids(run):
    tags = {}
    for path in (run / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                tags.setdefault(value.tag, []).append(event.step)
    assert tags["samples"] == [0, 3, 5]
    assert tags["generator_loss"] == [2, 4, 5]
    assert tags["images_per_second"] == [2, 4, 5]


def test_the_same_command_again_does_nothing(run, caplog):
    before = (run / "metrics.jsonl").read_bytes()
    # The library's logger writes through handlers of its own.
    logging.getLogger("transgan_tf").propagate = True
    with caplog.at_level(logging.INFO, "transgan_tf"):
        assert train(run_config(steps=5), run) == 0
    assert "has done its 5 steps" in caplog.text
    assert (run / "metrics.jsonl").read_bytes() == before


def back_at_step_3(run, folder):
    """Copies a run as if it had been killed between its two checkpoints."""
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoints" / "step-000000005")
    (folder / "checkpoints" / "latest").write_text("step-000000003\n")
    return folder


def test_a_run_in_two_parts_equals_one_in_one(run, tmp_path):
    # Step 3 lies between two lines of the curves.
    folder = back_at_step_3(run, tmp_path / "parts")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "ima')
    train(run_config(steps=5), folder)
    expected, actual = arrays_of(run), arrays_of(folder)
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], name)
    for one, other in zip(read_metrics(run), read_metrics(folder), strict=True):
        assert untimed(one) == untimed(other)


def test_only_averaged_weights_are_loaded(run):
    arrays = arrays_of(run)
    generator = load_generator(run)
    for variable in generator.variables:
        path = variable.path.partition("/")[2]
        average = arrays[f"ema_generator/{path}"]
        np.testing.assert_array_equal(variable.numpy(), average)
    kernel = "generator/from_latent/kernel"
    assert (arrays[kernel] != arrays[f"ema_{kernel}"]).any()


def test_another_configuration_is_refused(run):
    other = run_config(steps=5, batch_size=6, seed=3)
    with pytest.raises(RunError) as error:
        train(other, run)
    assert "training.batch_size: 4 -> 6" in str(error.value)
    assert "training.seed: 0 -> 3" in str(error.value)


def test_the_steps_of_falling_rates_cannot_be_changed(tmp_path):
    (tmp_path / "checkpoints" / "step-000000001").mkdir(parents=True)
    falling = run_config(steps=5, decay_start=0.5)
    (tmp_path / "config.json").write_text(falling.to_json())
    with pytest.raises(RunError, match="training.steps: 5 -> 6"):
        runs.open_run(tmp_path, run_config(steps=6, decay_start=0.5))


def test_other_images_are_refused(run):
    with pytest.raises(RunError, match=r"dataset: noise, 21 images, CRC .* ->"):
        train(run_config(steps=5), run, IMAGES[:20])


def test_a_run_without_a_checkpoint_may_be_changed(tmp_path):
    (tmp_path / "config.json").write_text(run_config(seed=1).to_json())
    runs.open_run(tmp_path, run_config(seed=2))
    assert load_config(tmp_path).training.seed == 2


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (IMAGES[:, :11, :11], "11 x 11 px in colour, and the networks take 12"),
        (IMAGES / 255, "must be uint8, got float64"),
        (IMAGES[:0], "at least one image"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, sentence, tmp_path):
    with pytest.raises(DataError, match=sentence):
        train(run_config(), tmp_path / "run", images)
    assert not (tmp_path / "run").exists()


def test_batches_that_cannot_be_split_are_refused():
    config = run_config(batch_size=6, accumulation=2).training
    training.check_split(config, 3)
    with pytest.raises(ConfigError, match="by 4 devices x 2 micro-batches"):
        training.check_split(config, 4)


def test_a_start_that_was_cut_off_is_no_hindrance(tmp_path):
    # Before it has a configuration, a folder has a log.
    (tmp_path / "log.txt").touch()
    (tmp_path / ".config.json.tmp").write_text("{")
    open_run(tmp_path, run_config())
    close_log()
    assert load_config(tmp_path) == run_config()


class FullDisk:
    """A writer of TensorBoard's files for which there is no room."""

    def flush(self):
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    close = flush


def test_a_full_disk_shows_in_tensorboards_file_too(tmp_path, monkeypatch):
    with pytest.raises(OSError, match=r"TensorBoard's file .*no space left"):
        callbacks.flush(FullDisk())
    # At the end it must not replace what was wrong before.
    monkeypatch.setattr(
        tf.summary, "create_file_writer", lambda folder: FullDisk()
    )
    workers = Workers(tf.distribute.get_strategy())
    with pytest.raises(RunError, match="the checkpoint"):
        with fitting._event_writer(tmp_path, workers):
            raise RunError("the checkpoint cannot be written")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="holds something that is not a run"):
        train(run_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/run cannot be written"):
        train(run_config(), tmp_path / "file" / "run")


def test_checkpoints_are_pruned_but_not_the_newest(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    gan = make_gan(run_config())
    (tmp_path / ".step-000000007.tmp").mkdir()
    for step in (1, 5, 9):
        gan.step.assign(step)
        folder.save(gan)
    assert names(tmp_path) == {"latest", "step-000000005", "step-000000009"}
    # Going back to 5: what came after it belongs to another course.
    gan.step.assign(6)
    folder.save(gan)
    assert names(tmp_path) == {"latest", "step-000000005", "step-000000006"}
    assert folder.latest().name == "step-000000006"


def names(folder):
    return {path.name for path in folder.iterdir()}


MIRRORED = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
from tests.test_training import run_config, train
for steps in map(int, sys.argv[3].split(",")):
    config = run_config(
        steps=steps, strategy="mirrored", jit=sys.argv[2] == "jit",
        accumulation=int(sys.argv[4]),
    )
    assert train(config, sys.argv[1]) == 0
"""


def check_mirrored(folder, run, *arguments):
    """Trains on two devices as `run` did on one; compares the curves."""
    result = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(folder), *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = read_metrics(folder)
    for two, one in zip(lines, read_metrics(run), strict=True):
        assert two["step"] == one["step"]
        for name in ("discriminator_loss", "penalty", "generator_loss"):
            assert two[name] == pytest.approx(one[name], rel=0.02, abs=0.02)


def test_mirrored_runs_train_as_on_one_device(run, tmp_path):
    check_mirrored(tmp_path / "run", run, "plain", "5", "1")


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices(run, tmp_path):
    folder = back_at_step_3(run, tmp_path / "run")
    check_mirrored(folder, run, "plain", "5", "1")
    check_near(folder, run)


def check_near(folder, run):
    """Compares what two runs have ended with, to float tolerance."""
    expected, actual = arrays_of(run), arrays_of(folder)
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=1e-3, atol=1e-4, err_msg=name
        )
    lines = read_metrics(folder)
    for line, other in zip(lines, read_metrics(run), strict=True):
        near = pytest.approx(untimed(other), rel=1e-3, abs=1e-3)
        assert untimed(line) == near


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 2, "generator_accumulation": 4},
        {"rematerialize": True, "rematerialize_stages": "generator.6"},
    ],
    ids=["micro-batches", "recomputed"],
)
def test_a_run_goes_on_with_what_takes_less_memory(changes, run, tmp_path):
    folder = back_at_step_3(run, tmp_path / "run")
    assert train(run_config(steps=5, **changes), folder) == 0
    saved = dataclasses.asdict(load_config(folder).training)
    assert saved | changes == saved
    check_near(folder, run)


@pytest.mark.slow
def test_mirrored_runs_accumulate_compile_and_go_on(run, tmp_path):
    check_mirrored(tmp_path / "run", run, "jit", "4,5", "2")


def test_a_lost_name_of_the_newest_checkpoint_is_found_again(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    for lost in ("", "step-", "../..\n"):
        (folder.folder / "latest").write_text(lost)
        assert folder.latest().name == "step-000000005"
    (folder.folder / "latest").unlink()
    assert folder.latest().name == "step-000000005"
    with pytest.raises(RunError, match="another configuration"):
        train(run_config(steps=5, seed=3), tmp_path / "run")
    with pytest.raises(RunError, match="'b': it has step-000000003, step-0"):
        folder.find("b")


def test_a_lost_best_checkpoint_does_not_stop_saving(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    (tmp_path / "best").write_text("step-000000002\n")
    gan = make_gan(run_config())
    for step in (2, 3, 4):
        gan.step.assign(step)
        folder.save(gan)
    kept = {"best", "latest", "step-000000002", "step-000000004"}
    assert names(tmp_path) == kept
    shutil.rmtree(tmp_path / "step-000000002")
    gan.step.assign(5)
    folder.save(gan)
    assert names(tmp_path) == {"best", "latest", "step-000000005"}


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("auto", 0, None),
        ("auto", 1, None),
        ("auto", 8, "GPU"),
        ("none", 8, None),
        ("mirrored", 8, "GPU"),
        ("mirrored", 0, "CPU"),
    ],
)
def test_strategies_of_gpus_that_are_not_here(
    name, gpus, expected, monkeypatch
):
    found = {
        kind: [tf.config.LogicalDevice(f"/{kind}:{n}", kind) for n in range(k)]
        for kind, k in (("GPU", gpus), ("CPU", 2))
    }
    monkeypatch.setattr(tf.config, "list_logical_devices", found.get)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", list)
    strategy = training.make_strategy(name)
    if expected is None:
        assert strategy is tf.distribute.get_strategy()
    else:
        assert strategy == [device.name for device in found[expected]]


def test_two_processes_cannot_train_in_one_folder(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    with open(tmp_path / "run" / "log.txt", "a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="another process trains in"):
            train(run_config(steps=6), tmp_path / "run")
    # The log is let go of when training ends.
    assert train(run_config(steps=5), tmp_path / "run") == 0
    assert train(run_config(steps=5), tmp_path / "run") == 0


@pytest.mark.slow
def test_a_grid_that_cannot_be_written_costs_no_step(run, tmp_path):
    folder = back_at_step_3(run, tmp_path / "run")
    shutil.rmtree(folder / "samples")
    (folder / "samples").write_text("in the way")
    with pytest.raises(OSError):
        train(run_config(steps=5), folder)
    assert CheckpointFolder(folder / "checkpoints").latest().name[-1] == "5"


class Failing(ArrayStore):
    """Images of which the fourth reading fails."""

    readings = 0

    def take(self, places):
        def read(places):
            self.readings += 1
            if self.readings == 4:
                raise DataError("the file is damaged")
            return self.images[places]

        images = tf.numpy_function(read, (places,), tf.uint8)
        return tf.ensure_shape(images, (None, *self.images.shape[1:]))


def test_an_image_that_cannot_be_read_stops_the_run(run, tmp_path):
    with pytest.raises(DataError) as error:
        train(run_config(steps=5), tmp_path / "run", Failing(IMAGES))
    assert "an image cannot be read (the file is damaged): check the" in str(
        error.value
    )
    # What was read before is not lost.
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    assert folder.latest().name == "step-000000003"


@pytest.mark.slow
def test_an_error_of_the_model_is_not_taken_for_an_images(
    tmp_path, monkeypatch
):
    update = TransGAN._update_average

    def broken(self, batch_size):
        message = "the average is broken"
        tf.debugging.assert_less(self.step.value, np.int64(4), message)
        update(self, batch_size)

    monkeypatch.setattr(TransGAN, "_update_average", broken)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        train(run_config(steps=5), tmp_path / "run")
    assert "the average is broken" in error.value.message
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    assert folder.latest().name == "step-000000003"


def test_a_configuration_that_cannot_be_read_is_named(tmp_path):
    for content in (b"{", b"\xff\xfe", b'{"dataset": 3}'):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(RunError, match="config.json cannot be used: "):
            load_config(tmp_path)


def test_a_checkpoint_of_other_networks_is_named(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(make_gan(run_config()))
    other = make_gan(run_config(generator={"latent_dim": 6}))
    before = {name: v.numpy() for name, v in state(other).items()}
    with pytest.raises(RunError, match="from_latent/kernel has shape"):
        folder.restore(other)
    for name, variable in state(other).items():
        np.testing.assert_array_equal(variable.numpy(), before[name])
