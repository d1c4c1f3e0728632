"""What a job may replace, and what an interrupted one leaves."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import prepared
from tests.photos import photographs
from tests.photos import write_folder
from tests.photos import write_zip
from tests.prepared import contents
from tests.prepared import images
from tests.prepared import prepare
from transgan_tf import data
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


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path, capsys):
    files = photographs(3)
    write_folder(tmp_path / "cats", files)
    assert prepared.run(tmp_path, source=tmp_path / "cats") == 1
    assert "holds something that is not a dataset" in capsys.readouterr().err
    words = ["--dataset=cats", f"--source={tmp_path / 'cats'}"]
    words += [f"--output_dir={tmp_path}", "--image_size=16", "--overwrite"]
    assert prepared.preprocess.main(words) == 0
    assert len(images(tmp_path / "cats")) == 3
    for name, content in files.items():
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
