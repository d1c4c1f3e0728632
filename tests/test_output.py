"""What a job may replace, and what an interrupted one leaves."""

import dataclasses
import errno
import fcntl
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import files
from pipeline.dofns import Finish
from pipeline.layout import shard_names
from pipeline.output import JobError
from pipeline.results import BAD
from pipeline.results import LEFT_OUT
from pipeline.results import OUTCOME
from pipeline.results import SEEN
from pipeline.results import SHARD
from pipeline.results import Plan
from pipeline.results import read_outcome
from pipeline.statistics import Statistics
from tests import prepared
from tests.photos import crop
from tests.photos import encoded
from tests.photos import photographs
from tests.photos import write_folder
from tests.photos import write_zip
from tests.prepared import contents
from tests.prepared import images
from tests.prepared import prepare
from transgan_tf import data
from transgan_tf.manifest import DatasetSettings
from transgan_tf.manifest import Shard
from transgan_tf.manifest import SourceFacts
from transgan_tf.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]


def test_other_settings_or_images_need_overwrite(tmp_path, capsys):
    source = write_folder(tmp_path / "photos", photographs(5))
    made = prepare(tmp_path, source=source)
    assert prepared.run(tmp_path, source=source, image_size=8) == 1
    assert "image_size: 16 -> 8" in capsys.readouterr().err
    write_folder(source, photographs(1, first=5))
    assert prepared.run(tmp_path, source=source) == 1
    assert "count: 5 -> 6" in capsys.readouterr().err
    # A file of the same name and size, changed in place.
    (source / "0005.jpg").unlink()
    later = time.time() + 5
    os.utime(source / "0001.jpg", (later, later))
    assert prepared.run(tmp_path, source=source) == 1
    assert "images have changed since" in capsys.readouterr().err
    assert len(images(made)) == 5
    words = ["--dataset=cats", f"--source={source}", "--image_size=8"]
    words += [f"--output_dir={tmp_path}", "--overwrite"]
    assert prepared.preprocess.main(words) == 0
    assert load_manifest(made).settings.image_size == 8
    assert len(load_manifest(made).shards) == 16


def test_dates_that_copies_and_cameras_set_do_not_deceive(tmp_path, capsys):
    photos = {f"{n}.bmp": encoded(crop(n), "BMP") for n in range(3)}
    source = write_folder(tmp_path / "photos", photos)
    ahead = time.time() + 1e6
    os.utime(source / "0.bmp", (ahead, ahead))
    # The clock of a file system may lag behind by a tick.
    time.sleep(0.1)
    prepare(tmp_path, source=source)
    assert prepared.run(tmp_path, source=source) == 0
    assert "is there already" in capsys.readouterr().out
    time.sleep(0.1)
    (source / "1.bmp").write_bytes(encoded(crop(9), "BMP"))
    os.utime(source / "1.bmp", (1e9, 1e9))
    assert prepared.run(tmp_path, source=source) == 1
    assert "images have changed since" in capsys.readouterr().err


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, capsys):
    photos = photographs(3)
    write_folder(tmp_path / "cats", photos)
    assert prepared.run(tmp_path, source=tmp_path / "cats") == 1
    assert "holds something that is not a dataset" in capsys.readouterr().err
    words = ["--dataset=cats", f"--source={tmp_path / 'cats'}"]
    words += [f"--output_dir={tmp_path}", "--image_size=16", "--overwrite"]
    assert prepared.preprocess.main(words) == 0
    assert len(images(tmp_path / "cats")) == 3
    for name, content in photos.items():
        assert (tmp_path / "cats" / name).read_bytes() == content


def test_a_killed_job_starts_again_and_ends_as_undisturbed(tmp_path):
    source = write_zip(
        tmp_path / "a.zip", photographs(400, height=99, width=99)
    )
    expected = contents(prepare(tmp_path / "whole", source=source))
    command = [sys.executable, "-m", "pipeline.preprocess", "--dataset=cats"]
    command += [f"--source={source}", f"--output_dir={tmp_path}"]
    command += ["--image_size=16", "--shards=3"]
    folder = tmp_path / "cats"
    stages = (".work-*/spill-*", "quarantine.jsonl", "train-*", "manifest.json")
    for name in stages:
        with subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.DEVNULL
        ) as process:
            while not list(folder.glob(name)) and process.poll() is None:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        if not (folder / "manifest.json").exists():
            with pytest.raises(data.DataError, match="has not ended|no PNG"):
                data.open_folder(folder, 16, 3)
    assert prepared.run(tmp_path, source=source) == 0
    assert contents(folder) == expected


def test_the_earlier_dataset_stays_until_the_new_one_is_finished(
    tmp_path, capsys
):
    source = write_folder(tmp_path / "photos", photographs(5))
    made = prepare(tmp_path, source=source)
    before = contents(made)
    words = ["--dataset=cats", f"--source={source}", "--image_size=8"]
    words += [f"--output_dir={tmp_path}", "--overwrite"]
    assert prepared.preprocess.main([*words, "--runner=NoSuchRunner"]) == 1
    assert "Beam cannot make the runner" in capsys.readouterr().err
    assert contents(made) == before
    write_folder(source, {"bad.png": b""})
    assert prepared.preprocess.main(words) == 1
    after = contents(made)
    assert b"bad.png" in after.pop("quarantine.jsonl")
    assert after == {n: c for n, c in before.items() if n in after}


def test_anothers_tfrecords_are_not_ours(tmp_path, capsys):
    name = "train-00000-of-00016.tfrecord"
    write_folder(tmp_path / "cats", {name: b"another's"})
    source = write_folder(tmp_path / "photos", photographs(3))
    assert prepared.run(tmp_path, source=source) == 1
    assert f"such as {name}" in capsys.readouterr().err
    assert contents(tmp_path / "cats") == {name: b"another's"}


def test_two_jobs_do_not_work_on_one_dataset(tmp_path, capsys):
    source = write_folder(tmp_path / "photos", photographs(3))
    folder = tmp_path / "cats"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert prepared.run(tmp_path, source=source) == 1
    assert "another job works on" in capsys.readouterr().err
    os.close(descriptor)
    assert prepared.run(tmp_path, source=source) == 0


def test_a_dataset_that_is_there_keeps_the_work_of_a_running_job(
    tmp_path, capsys
):
    source = write_folder(tmp_path / "photos", photographs(3))
    made = prepare(tmp_path, source=source)
    work = write_folder(made / f".work-{'0' * 32}", {"spill-0": b"half"})
    descriptor = os.open(made, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert prepared.run(tmp_path, source=source) == 0
    assert (work / "spill-0").read_bytes() == b"half"
    os.close(descriptor)
    # Nobody works on it now, so it is what an interrupted job left.
    assert prepared.run(tmp_path, source=source) == 0
    assert capsys.readouterr().out.count("is there already") == 2
    assert not work.exists()


def test_a_folder_goes_while_a_killed_jobs_worker_writes_into_it(tmp_path):
    work, gone = tmp_path / "work", threading.Event()

    def write():
        for number in itertools.count():
            try:
                files.create(str(work / f"{number}")).close()
            except FileNotFoundError:
                return gone.set()

    for _ in range(20):
        work.mkdir()
        gone.clear()
        writer = threading.Thread(target=write)
        writer.start()
        while not any(work.iterdir()):
            pass
        files.delete(str(work))
        writer.join()
        assert gone.is_set()
        assert not work.exists()


# === The end of a job, tried again ===


@pytest.fixture
def finished(tmp_path):
    """Returns what the last step of a job is given, and its folder."""
    output, work = tmp_path / "cats", tmp_path / "cats" / WORK_NAME
    settings = DatasetSettings(16, shards=4)
    parts = [(SEEN, 8)]
    work.mkdir(parents=True)
    for name in shard_names(settings):
        content = name.encode() * 9
        (work / name).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        parts.append((SHARD, (Shard(name, 2, len(content), sha256), TWO)))
    facts = SourceFacts("folder", 8, "0" * 64)
    plan = Plan("cats", settings, facts, (), str(output), str(work), 0.0)
    return Finish(plan), parts, output


WORK_NAME = f".work-{'1' * 32}"
TWO = Statistics(2, 2, [3], [5])


def end(finish, parts):
    """Does the last step and returns the dataset without what was work."""
    finish.process((None, parts))
    outcome = read_outcome(finish.plan)
    assert outcome.accepted, outcome.problem
    return {p.name: p.read_bytes() for p in dataset_files(finish.plan.output)}


def dataset_files(output):
    return [path for path in Path(output).iterdir() if path.is_file()]


def test_the_end_again_leaves_the_dataset_as_it_is(finished):
    finish, parts, output = finished
    made = end(finish, parts)
    assert {*made} > {"manifest.json", "train-00003-of-00004.tfrecord"}
    replaced = [p for p in dataset_files(output) if p.suffix != ".jsonl"]
    before = [path.stat().st_ino for path in replaced]
    (output / WORK_NAME / OUTCOME).unlink()
    assert end(finish, parts) == made
    assert [path.stat().st_ino for path in replaced] == before


@pytest.mark.parametrize("renames", range(5))
def test_the_end_after_it_broke_off_between_renames(
    renames, finished, monkeypatch
):
    finish, parts, output = finished
    # Of an earlier dataset: one of another number of shards goes, one of the
    # same name is replaced.
    for name in ("train-00000-of-00007.tfrecord", parts[-1][1][0].name):
        (output / name).write_bytes(b"earlier")
    (output / "manifest.json").write_bytes(b"earlier")
    replace, left = files.replace, [renames + 1]

    def break_off(temporary, path):
        # The first is that of the quarantine.
        if not left[0]:
            raise OSError(errno.EIO, "Input/output error", path)
        left[0] -= 1
        replace(temporary, path)

    monkeypatch.setattr(files, "replace", break_off)
    with pytest.raises(OSError, match="Input/output"):
        finish.process((None, parts))
    assert not (output / "manifest.json").exists()
    monkeypatch.undo()
    made = end(finish, parts)
    shards = [shard for kind, (shard, _) in parts[1:]]
    assert {n for n in made if n.endswith("d")} == {s.name for s in shards}
    for shard in shards:
        assert hashlib.sha256(made[shard.name]).hexdigest() == shard.sha256
    assert load_manifest(output).shards == tuple(shards)


def test_an_equal_earlier_dataset_is_replaced_all_the_same(finished):
    finish, parts, output = finished
    made = end(finish, parts)
    # This job's shards wait, so what is there is not of its making.
    name = parts[1][1][0].name
    (output / WORK_NAME / name).write_bytes(made[name])
    (output / name).write_bytes(b"damaged")
    assert end(finish, parts) == made


def test_a_shard_that_vanished_is_no_dataset(finished):
    finish, parts, output = finished
    name = parts[1][1][0].name
    (output / WORK_NAME / name).unlink()
    (output / name).write_bytes(b"another")
    with pytest.raises(JobError, match=f"{name} has vanished from"):
        finish.process((None, parts))
    assert not (output / "manifest.json").exists()


# === What the runner lost ===


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ((BAD, {"source": "a"}), "9 of 8 images are written, bad or left out"),
        ((LEFT_OUT, ("small", 2)), "10 of 8 images"),
        ((SEEN, 3), "8 of 11 images"),
        (None, "6 of 8 images are written, bad or left out, in 3 of 4 files"),
    ],
)
def test_a_job_whose_images_do_not_add_up_is_refused(part, told, finished):
    finish, parts, output = finished
    parts = [*parts, part] if part else parts[:-1]
    finish.process((None, parts))
    outcome = read_outcome(finish.plan)
    assert not outcome.accepted
    assert outcome.problem.startswith("Beam's runner has lost or doubled")
    assert told in outcome.problem
    assert {p.name for p in dataset_files(output)} == {"quarantine.jsonl"}


def test_a_missing_empty_shard_is_noticed(finished):
    finish, parts, _ = finished
    kind, (shard, _) = parts[-1]
    empty = dataclasses.replace(shard, count=0)
    parts[-1] = kind, (empty, Statistics())
    parts[0] = SEEN, 6
    finish.plan = dataclasses.replace(
        finish.plan, source=SourceFacts("folder", 6, "0" * 64)
    )
    end(finish, parts)
    finish.process((None, parts[:-1]))
    assert "in 3 of 4 files" in read_outcome(finish.plan).problem


def test_images_left_out_and_bad_ones_add_up_too(finished):
    finish, parts, _ = finished
    parts[0] = SEEN, 11
    facts = SourceFacts("folder", 11, "0" * 64)
    finish.plan = dataclasses.replace(
        finish.plan, source=facts, max_bad_fraction=1.0
    )
    bad = {"source": "a", "stage": "read", "reason": "r"}
    end(finish, [*parts, (BAD, bad), (LEFT_OUT, ("small", 2))])
