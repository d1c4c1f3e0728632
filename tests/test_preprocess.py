"""The preprocessing job on real photographs: output, quarantine, refusals."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.layout import digest_of
from tests import prepared
from tests.photos import BROKEN
from tests.photos import crop
from tests.photos import encoded
from tests.photos import photographs
from tests.photos import sound_files
from tests.photos import write_folder
from tests.prepared import contents
from tests.prepared import images
from tests.prepared import prepare
from tests.prepared import quarantine
from tests.prepared import records
from transgan_tf import data
from transgan_tf.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]
SOUND = sound_files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every sound form, also below a sub-folder, and what is to be ignored."""
    below = {f"more/{name}": file for name, file in SOUND.items()}
    others = {
        "notes.txt": b"no image",
        ".hidden.png": b"no image",
        ".cache/a.png": b"no image",
    }
    path = tmp_path_factory.mktemp("photos")
    return write_folder(path, SOUND | below | others)


@pytest.fixture(scope="module")
def dataset(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("data")
    return prepare(output, source=folder, validation_fraction=0.2)


# === What is written ===


def test_a_folder_becomes_a_dataset(dataset, folder):
    found = images(dataset) | images(dataset, "validation")
    expected = {path.name for path in folder.rglob("*.*")}
    assert len(found) == 2 * len(SOUND)
    assert {name.rpartition("/")[2] for name in found} < expected
    paths = data.find_images(folder)
    pixels = data.load_folder(folder, 16, 3)
    for path, image in zip(paths, pixels, strict=True):
        key = path.relative_to(folder).as_posix()
        np.testing.assert_array_equal(found[key], image, key)


def test_records_are_sorted_and_placed_by_the_hash_of_their_keys(dataset):
    manifest = load_manifest(dataset)
    assert [s.name for s in manifest.shards_of("validation")] == [
        "validation-00000-of-00001.tfrecord"
    ]
    assert manifest.count("validation") == len(records(dataset, "validation"))
    for split in ("train", "validation"):
        for record in records(dataset, split):
            digest = digest_of(record["filename"])
            share = int.from_bytes(digest[:8], "big") / 2**64
            assert (share < 0.2) == (split == "validation")
    first = records(dataset)[: manifest.shards[0].count]
    digests = [digest_of(record["filename"]) for record in first]
    assert digests == sorted(digests)


def test_the_manifest_and_the_statistics_tell_the_dataset(dataset):
    manifest = load_manifest(dataset)
    assert manifest.dataset == "cats"
    assert manifest.settings.image_size == 16
    assert manifest.source.kind == "folder"
    assert manifest.source.count == 2 * len(SOUND)
    assert manifest.tool.startswith("transgan-tf ")
    # Images lie in the folder itself, too: no classes.
    assert manifest.classes == ()
    statistics = json.loads((dataset / "statistics.json").read_bytes())
    assert sum(statistics["images"].values()) == 2 * len(SOUND)
    assert statistics["quarantined"] == 0
    pixels = [
        *images(dataset).values(),
        *images(dataset, "validation").values(),
    ]
    pixels = np.stack(pixels).astype("float64")
    for channel, row in enumerate(statistics["channels"]):
        values = pixels[..., channel]
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["deviation"] == pytest.approx(values.std(), rel=1e-12)
    assert statistics["shorter_side_of_sources"] == {"0-63": 2 * len(SOUND)}
    assert (dataset / "quarantine.jsonl").read_bytes() == b""


def test_nothing_else_is_left_in_the_folder(dataset):
    names = {path.name for path in dataset.iterdir()}
    shards = {shard.name for shard in load_manifest(dataset).shards}
    others = {"manifest.json", "statistics.json", "quarantine.jsonl"}
    assert names == shards | others


# === The same bytes, however it is run ===


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_the_mode_changes_no_byte(mode, dataset, folder, tmp_path):
    again = prepare(
        tmp_path,
        source=folder,
        validation_fraction=0.2,
        direct_running_mode=mode,
        direct_num_workers=2,
    )
    assert contents(again) == contents(dataset)


def test_another_place_changes_no_byte(dataset, folder, tmp_path):
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    backwards = dict(reversed(files.items()))
    elsewhere = write_folder(tmp_path / "elsewhere", backwards)
    again = prepare(tmp_path, source=elsewhere, validation_fraction=0.2)
    assert contents(again) == contents(dataset)


DASK = """
import sys
from dask.distributed import LocalCluster
from tests.prepared import run

if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    ) as cluster:
        sys.exit(run(
            sys.argv[1],
            source=sys.argv[2],
            validation_fraction=0.2,
            runner="apache_beam.runners.dask.dask_runner.DaskRunner",
            dask_client_address=cluster.scheduler_address,
        ))
"""


def test_a_dask_cluster_of_two_processes_changes_no_byte(
    dataset, folder, tmp_path
):
    script = tmp_path / "on_dask.py"
    script.write_text(DASK)
    subprocess.run(
        [sys.executable, script, tmp_path, folder],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    assert contents(tmp_path / "cats") == contents(dataset)


# === The same command again ===


def test_the_same_command_again_does_nothing(dataset, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in dataset.iterdir()}
    flags = {"source": folder, "validation_fraction": 0.2}
    assert prepared.run(dataset.parent, **flags) == 0
    assert "is there already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in dataset.iterdir()} == before


# === Bad images ===


def test_every_kind_of_broken_file_is_quarantined(tmp_path):
    broken = {f"bad/{name}": file for name, (file, *_) in BROKEN.items()}
    source = write_folder(tmp_path / "photos", photographs(30) | broken)
    made = prepare(tmp_path, source=source, max_bad_fraction=0.3)
    assert len(images(made)) == 30
    rows = quarantine(made)
    assert [row["source"] for row in rows] == sorted(broken)
    for row in rows:
        _, stage, reason = BROKEN[row["source"].removeprefix("bad/")]
        assert row["stage"] == stage
        assert reason in row["reason"]
    statistics = json.loads((made / "statistics.json").read_bytes())
    assert statistics["quarantined"] == len(BROKEN)


def test_too_many_bad_images_fail_the_job(tmp_path, capsys):
    source = write_folder(
        tmp_path / "photos", photographs(97) | {f"{n}.png": b"" for n in "abc"}
    )
    flags = {"source": source, "image_size": 16}
    assert prepared.run(tmp_path, **flags, max_bad_fraction=0.029) == 1
    error = capsys.readouterr().err
    assert "error: 3 of 100 images are bad" in error
    assert "see quarantine.jsonl" in error
    assert {p.name for p in (tmp_path / "cats").iterdir()} == {
        "quarantine.jsonl"
    }
    assert len(quarantine(tmp_path / "cats")) == 3
    # What failed may be tried again.
    assert prepared.run(tmp_path, **flags, max_bad_fraction=0.03) == 0


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"notes.txt": b"x"}, "holds no PNG, JPEG, WebP, BMP or GIF file"),
        ({"a.png": b"x"}, "1 of 1 images are bad"),
        ({"a.png": encoded(crop(1))}, "no image is left for the split train"),
    ],
)
def test_nothing_to_train_from(files, sentence, tmp_path, capsys):
    source = write_folder(tmp_path / "photos", files)
    assert prepared.run(tmp_path, source=source, min_size=99) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "cats" / "manifest.json").exists()


# === What is left out ===


def test_filters_duplicates_and_a_maximum(tmp_path):
    files = photographs(40) | {
        "small.png": encoded(crop(1, 15, 60)),
        "long.png": encoded(crop(2, 20, 61)),
        "copy of 0007.jpg": photographs(1, first=7)["0007.jpg"],
    }
    source = write_folder(tmp_path / "photos", files)
    flags = {"min_size": 16, "max_aspect": 3, "deduplicate": True}
    words = [f"--{n}={v}" for n, v in flags.items() if v is not True]
    words += ["--deduplicate", "--dataset=cats", "--image_size=16"]
    words += [f"--source={source}", f"--output_dir={tmp_path}"]
    assert prepared.preprocess.main([*words, "--max_images=25"]) == 0
    found = set(images(tmp_path / "cats"))
    twins = {"0007.jpg", "copy of 0007.jpg"}
    rest = set(files) - {"small.png", "long.png", max(twins)}
    assert found == set(sorted(rest, key=digest_of)[:25])
    statistics = (tmp_path / "cats" / "statistics.json").read_bytes()
    assert json.loads(statistics)["left_out"] == {
        "longer than max_aspect": 1,
        "more than max_images": 15,
        "same bytes as another": 1,
        "smaller than min_size": 1,
    }


# === Mistakes ===


def test_what_the_machine_does_is_told_in_one_sentence(
    tmp_path, capsys, monkeypatch
):
    def read(path):
        raise OSError(errno.EIO, "Input/output error", path)

    source = write_folder(tmp_path / "photos", photographs(3))
    monkeypatch.setattr("pipeline.files.read", read)
    assert prepared.run(tmp_path, source=source) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: a worker failed (OSError: [Errno 5]")
    monkeypatch.undo()
    assert prepared.run(tmp_path, source=source) == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"source": "nowhere.zip"}, "there is no zip nowhere.zip"),
        ({"source": "no/such/place"}, "there is no folder or archive"),
        ({"source": __file__}, "neither a folder, nor a .zip"),
        ({"dataset": "a/b"}, "--dataset is a name, not a path"),
        ({"dataset": "lsun_church"}, "--source is needed: where you have the"),
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"shards": 0}, "shards must be at least 1"),
        (
            {"format": "jpeg", "quality": 96},
            "quality must lie between 1 and 95",
        ),
        ({"validation_fraction": 1.0}, "must be at least 0 and below 1"),
        ({"max_bad_fraction": 2}, "--max_bad_fraction must lie between"),
        ({"direct_num_workers": -3}, "--direct_num_workers must be at least 1"),
    ],
)
def test_mistakes_get_one_sentence(flags, sentence, tmp_path, capsys):
    if "source" not in flags and flags.get("dataset") != "lsun_church":
        flags = {"source": tmp_path} | flags
    assert prepared.run(tmp_path / "data", **flags) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert sentence in error
    assert not (tmp_path / "data").exists()


def test_a_size_of_ones_own_is_needed(tmp_path, capsys):
    words = ["--dataset=cats", f"--source={tmp_path}"]
    assert prepared.preprocess.main(words) == 1
    assert "so --image_size is needed" in capsys.readouterr().err
