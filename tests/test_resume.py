"""A run that is killed ends as one that is not, bit for bit."""

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import prepared
from tests.killed_run import resumable_config
from tests.killed_run import train
from tests.test_features import Network
from tests.test_features import save
from transgan_tf.callbacks import Checkpointing
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import snapshot
from transgan_tf.gan import make_gan
from transgan_tf.loss_scale import INITIAL

pytestmark = pytest.mark.usefixtures("freed_graphs")

STEPS = 12
# What a line of metrics.jsonl says of time.
TIMES = ("images_per_second", "data_wait_share", "seconds_")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run on the embedded digits, undisturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert train(folder, "mnist", STEPS) == 0
    return folder


def start(folder, *arguments, dataset="mnist"):
    words = [sys.executable, "-m", "tests.killed_run", folder, dataset]
    return subprocess.Popen(
        [*map(str, words), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *arguments, dataset="mnist", largest_file=None):
    """Runs until the process ends; returns its status and its output."""
    process = start(folder, *arguments, dataset=dataset)
    if largest_file is not None:
        limits = (largest_file, largest_file)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def read_metrics(folder):
    """Returns the lines of a run's metrics without its times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)}
        for line in lines
    ]


def read_arrays(folder):
    newest = CheckpointFolder(folder / "checkpoints").latest()
    with np.load(newest / "state.npz") as archive:
        return newest.name, {name: archive[name] for name in archive.files}


def check_same(folder, whole):
    """Asserts that two runs have the same results, to the last bit."""
    (name, actual), (last, expected) = map(read_arrays, (folder, whole))
    assert name == last
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert array.tobytes() == actual[name].tobytes(), name
    assert read_metrics(folder) == read_metrics(whole)
    for path in (whole / "samples").iterdir():
        same = (folder / "samples" / path.name).read_bytes()
        assert same == path.read_bytes(), path.name
    names = {path.name for path in (whole / "checkpoints").iterdir()}
    assert {p.name for p in (folder / "checkpoints").iterdir()} == names


def test_a_run_killed_twice_ends_as_an_undisturbed_one(whole, tmp_path):
    # Of a start's second checkpoint: while its arrays are written, and while
    # `latest` still names the one before.
    for point in (4, 6):
        status, output = run(tmp_path / "run", STEPS, point)
        assert status == -signal.SIGKILL, output
    assert "goes on at step 2" in output
    status, output = run(tmp_path / "run", STEPS)
    assert status == 0, output
    assert "goes on at step 4" in output
    check_same(tmp_path / "run", whole)


def prepare_photos(folder):
    """Writes TFRecords of 11 images; returns their folder."""
    source = folder / "photos"
    source.mkdir()
    rng = np.random.default_rng(3)
    for index in range(11):
        pixels = rng.integers(0, 256, (13, 12, 3), "uint8")
        Image.fromarray(pixels).save(source / f"{index}.png")
    return prepared.prepare(folder / "data", source=source, image_size=12)


@pytest.mark.slow
def test_a_killed_run_on_tfrecords_ends_as_an_undisturbed_one(tmp_path):
    data = prepare_photos(tmp_path)
    assert train(tmp_path / "whole", str(data), 7) == 0
    # Before the folder of the second checkpoint has its name.
    status, output = run(tmp_path / "run", 7, 5, dataset=data)
    assert status == -signal.SIGKILL, output
    assert list((tmp_path / "run" / "checkpoints").glob(".*.tmp"))
    status, output = run(tmp_path / "run", 7, dataset=data)
    assert status == 0, output
    assert "goes on at step 2" in output
    check_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_with_everything_ends_as_an_undisturbed_one(tmp_path):
    features = save(tmp_path / "features", Network())
    data = prepare_photos(tmp_path)
    for name, points in (("whole", []), ("run", [4, 8])):
        for point in [*points, None]:
            words = [7] if point is None else [7, point]
            status, output = run(
                tmp_path / name, *words, f"--features={features}", dataset=data
            )
            assert status == (-signal.SIGKILL if point else 0), output
    assert "goes on at step" in output
    check_same(tmp_path / "run", tmp_path / "whole")
    arrays = read_arrays(tmp_path / "run")[1]
    scale = float(arrays["loss_scales/generator/scale"])
    assert scale < INITIAL, "no update was too large for the scale"
    lines = read_metrics(tmp_path / "run")
    assert sum("evaluation" in line for line in lines) >= 2


@pytest.mark.slow
def test_thirty_random_kills_lose_nothing(tmp_path):
    """Half of them of a run on the embedded digits, half on TFRecords."""
    datasets = {"mnist": "mnist", "records": str(prepare_photos(tmp_path))}
    steps, moments = 400, random.Random(5)
    for name, dataset in datasets.items():
        assert train(tmp_path / f"whole-{name}", dataset, steps) == 0
    torn = 0
    for number in range(30):
        name = ("mnist", "records")[number % 2]
        folder = tmp_path / name
        process = start(folder, steps, dataset=datasets[name])
        if number % 3 == 2:
            wait_for_a_checkpoint(folder / "checkpoints", process)
            time.sleep(moments.uniform(0, 0.2))
        elif number % 3 == 1:
            wait_for_a_checkpoint(folder / "checkpoints", process)
            wait_for_a_writing(folder / "checkpoints", process)
            time.sleep(moments.uniform(0, 0.01))
        else:
            # While it starts, restores, cuts its curves, or compiles.
            time.sleep(moments.uniform(0, 20))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was too fast to kill"
        torn += any((folder / "checkpoints").glob(".*.tmp"))
    # Some were killed inside the writing of a checkpoint.
    assert torn
    for name, dataset in datasets.items():
        status, output = run(tmp_path / name, steps, dataset=dataset)
        assert status == 0, output
        check_same(tmp_path / name, tmp_path / f"whole-{name}")


def wait_for_a_checkpoint(folder, process):
    """Waits until the process has written one."""

    def newest():
        path = folder / "latest"
        return path.read_text() if path.is_file() else None

    before = newest()
    while newest() == before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


def wait_for_a_writing(folder, process):
    """Waits until the process has begun to write a checkpoint."""
    while not any(folder.glob(".*.tmp")):
        assert process.poll() is None, process.communicate()[0]


# === What is damaged ===


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_a_name(path):
    # In the list at the archive's end, not where the array is.
    before, name, after = path.read_bytes().rpartition(b"bad_row")
    path.write_bytes(before + name.replace(b"row", b"sow") + after)


def flip_a_compression(path):
    # Of the first entry in the list at the archive's end: 0 is none, 8 is one.
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] ^= 8
    path.write_bytes(content)


def flip_a_bracket(path):
    before, bracket, after = path.read_bytes().partition(b")")
    path.write_bytes(before + b"(" + after)


def flip_a_shape(path):
    content = path.read_bytes()
    shape = re.search(rb"'shape': \(\d+", content)
    changed = bytearray(content)
    changed[shape.end() - 1] ^= 1
    path.write_bytes(changed)


def cut_the_end(path):
    os.truncate(path, path.stat().st_size - 100)


DAMAGES = {
    "one bit differs": flip_a_bit,
    "the end is missing": cut_the_end,
    "it is empty": lambda path: path.write_bytes(b""),
    "it is no archive": lambda path: path.write_bytes(b"\x93NUMPY" * 9),
    "an array's name differs": flip_a_name,
    "an array's compression differs": flip_a_compression,
    "an array's header has no end": flip_a_bracket,
    "an array's shape differs": flip_a_shape,
    "it is gone": Path.unlink,
    "its folder is gone": lambda path: shutil.rmtree(path.parent),
}


@pytest.fixture(scope="module")
def gan():
    return make_gan(resumable_config(9))


@pytest.fixture(scope="module")
def saved(gan, tmp_path_factory):
    """Checkpoints of the steps 2 and 4."""
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"))
    for step in (2, 4):
        gan.step.assign(step)
        folder.save(gan)
    return folder.folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_checkpoint_is_taken(
    damage, gan, saved, tmp_path, caplog
):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))
    DAMAGES[damage](folder.folder / "step-000000004" / "state.npz")
    gan.step.assign(7)
    with caplog.at_level("WARNING", "transgan_tf"):
        assert folder.restore(gan)
    assert int(gan.step) == 2
    if damage != "its folder is gone":
        assert "step-000000004 is damaged (" in caplog.text
        assert folder.latest().name == "step-000000002"
    # What comes next replaces it.
    gan.step.assign(4)
    folder.save(gan)
    gan.step.assign(0)
    assert folder.restore(gan)
    assert int(gan.step) == 4


def test_no_checkpoint_that_is_whole_is_an_error(gan, saved, tmp_path):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))
    for path in folder.folder.glob("step-*"):
        cut_the_end(path / "state.npz")
    with pytest.raises(RunError, match=r"every checkpoint in .* is damaged"):
        folder.restore(gan)


def test_a_checkpoint_that_may_not_be_read_is_not_passed_over(
    gan, saved, tmp_path, monkeypatch
):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))

    for error in (PermissionError(13, "Permission denied"), OSError(5, "EIO")):

        def refuse(*arguments, error=error):
            raise error

        # Root may read anything.
        monkeypatch.setattr(np, "load", refuse)
        match = rf"0004 cannot be read \({error.strerror}"
        with pytest.raises(RunError, match=match):
            folder.restore(gan)
    # What may be read again is not lost.
    assert folder.latest().name == "step-000000004"


def test_a_checkpoint_that_memory_is_too_small_for_is_not_passed_over(
    gan, saved, tmp_path, monkeypatch
):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))

    def run_out(*arguments):
        raise MemoryError("no room for 3 GiB")

    monkeypatch.setattr(np, "load", run_out)
    with pytest.raises(MemoryError, match="no room"):
        folder.restore(gan)
    assert folder.latest().name == "step-000000004"


def test_checkpoints_without_the_later_counters_go_on(gan, saved, tmp_path):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))
    path = folder.latest() / "state.npz"
    with np.load(path) as archive:
        later = ("skipped_updates", "bad_row")
        arrays = {n: archive[n] for n in archive.files if n not in later}
    np.savez(path, **arrays)
    gan.bad_row.assign(3)
    assert folder.restore(gan)
    assert (int(gan.step), int(gan.bad_row)) == (4, 0)


def test_an_old_checkpoint_that_stays_is_told(
    gan, saved, tmp_path, monkeypatch, caplog
):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"), 1)

    def refuse(path, onerror):
        onerror(os.rmdir, path, (OSError, OSError(16, "Busy"), None))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with caplog.at_level("WARNING", "transgan_tf"):
        folder._prune(folder.latest())
    assert "step-000000002 cannot be removed ([Errno 16] Busy)" in caplog.text


def test_a_checkpoint_that_was_restored_is_not_written_again(gan, saved):
    folder = CheckpointFolder(saved)
    folder.restore(gan)
    before = (folder.latest() / "state.npz").stat().st_mtime_ns
    saving = Checkpointing(1, first_step=4, last_step=9, folder=folder)
    saving.set_model(gan)
    saving.save()
    saving.close()
    assert (folder.latest() / "state.npz").stat().st_mtime_ns == before


# === A disk that is full ===


def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "step-000000012")
    # No file may grow to the size of a checkpoint.
    status, output = run(folder, STEPS, largest_file=20_000)
    assert status == 1
    assert "goes on at step 10" in output
    sentence = f"error: the checkpoint {folder}/checkpoints/step-000000012 can"
    assert output.splitlines()[-1].startswith(sentence), output
    assert "Traceback" not in output
    assert read_arrays(folder)[0] == "step-000000010"


def test_a_checkpoint_that_cannot_be_written_leaves_room(
    gan, saved, tmp_path, monkeypatch
):
    folder = CheckpointFolder(shutil.copytree(saved, tmp_path / "saved"))

    def refuse(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    gan.step.assign(6)
    with pytest.raises(RunError, match="0006 cannot be written .No space"):
        folder.save(gan)
    names = {path.name for path in folder.folder.iterdir()}
    assert names == {"latest", "step-000000002", "step-000000004"}
    assert folder.restore(gan)
    assert int(gan.step) == 4


def test_a_snapshot_does_not_move_with_the_training_after_it(gan):
    before = snapshot(gan)
    copies = {name: array.copy() for name, array in before.items()}
    step = tf.function(gan.train_step, autograph=False)
    step(tf.zeros((4, 12, 12, 3)))
    moved = 0
    for name, array in snapshot(gan).items():
        np.testing.assert_array_equal(before[name], copies[name], name)
        moved += (array != before[name]).any()
    assert moved > len(copies) / 2
