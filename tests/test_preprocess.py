"""The preprocessing job on real photographs: sources, output, refusals."""

import errno
import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.layout import digest_of
from tests import prepared
from tests.photos import BROKEN
from tests.photos import crop
from tests.photos import encoded
from tests.photos import sound_files
from tests.photos import write_folder
from tests.photos import write_lmdb
from tests.photos import write_tar
from tests.photos import write_zip
from tests.prepared import contents
from tests.prepared import images
from tests.prepared import prepare
from tests.prepared import records
from transgan_tf import data
from transgan_tf.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]
SOUND = sound_files()


def photographs(count, format="JPEG", first=0, **size):
    """Returns image files of crops by name."""
    suffix = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}[format]
    numbers = range(first, first + count)
    return {
        f"{n:04d}.{suffix}": encoded(crop(n, **size), format) for n in numbers
    }


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


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
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


# === Sources ===


def test_archives_hold_the_same_images(tmp_path):
    files = {f"./{c}/{n}": f for c in "ab" for n, f in photographs(3).items()}
    sources = [
        write_folder(tmp_path / "folder", files),
        write_zip(tmp_path / "photos.zip", files),
        write_tar(tmp_path / "photos.tar", files),
        write_tar(tmp_path / "photos.tar.gz", files, "w:gz"),
    ]
    made = [
        prepare(tmp_path / str(number), source=source)
        for number, source in enumerate(sources)
    ]
    for folder, kind in zip(made, ("zip", "tar", "tar.gz"), strict=False):
        assert records(folder) == records(made[0]), kind
    manifest = load_manifest(made[3])
    assert manifest.source.kind == "tar.gz"
    assert manifest.classes == ("a", "b")
    for record in records(made[3]):
        assert record["label"] == "ab".index(record["filename"][0])
    statistics = json.loads((made[1] / "statistics.json").read_bytes())
    assert statistics["labels"] == {"a": 3, "b": 3}


def test_labels_can_be_left_out(tmp_path):
    files = {f"{c}/x.png": encoded(crop(1)) for c in "ab"}
    source = write_folder(tmp_path / "folder", files)
    flags = ["--dataset=cats", f"--source={source}", "--image_size=16"]
    output = [f"--output_dir={tmp_path}", "--no_labels"]
    assert prepared.preprocess.main([*flags, *output]) == 0
    assert load_manifest(tmp_path / "cats").classes == ()
    assert {r["label"] for r in records(tmp_path / "cats")} == {None}


def test_members_that_are_unsafe_hidden_or_encrypted(tmp_path):
    file = encoded(crop(1))
    files = {
        "../out.png": file,
        "/root.png": file,
        "a/../../b.png": file,
        "__MACOSX/._a.png": b"of a Mac",
        ".hidden.png": b"hidden",
        "good.png": file,
        "readme.txt": b"no image",
    }
    for source in (
        write_zip(tmp_path / "a.zip", files),
        write_tar(tmp_path / "a.tar", files),
        write_tar(tmp_path / "a.tgz", files, "w:gz"),
    ):
        output = tmp_path / source.suffix
        made = prepare(output, source=source, max_bad_fraction=0.9)
        assert set(images(made)) == {"good.png"}
        rows = quarantine(made)
        assert {row["source"] for row in rows} == set(list(files)[:3])
        assert {row["reason"] for row in rows} == {
            "its name points out of the archive"
        }
    assert not (tmp_path.parent / "out.png").exists()


def quarantine(folder):
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_zip_member_whose_data_is_broken(tmp_path):
    files = photographs(300, "PNG", height=9, width=9)
    path = write_zip(tmp_path / "a.zip", files)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    made = prepare(tmp_path, source=path)
    (row,) = quarantine(made)
    assert row["source"] == "0000.png"
    assert "it cannot be unpacked" in row["reason"]
    assert load_manifest(made).count("train") == 299


def test_two_members_of_one_name(tmp_path):
    path = tmp_path / "a.tar"
    files = photographs(3)
    write_tar(path, files)
    write_tar(path, {"0000.jpg": encoded(crop(77), "JPEG")}, "a")
    made = prepare(tmp_path, source=path, max_bad_fraction=0.3)
    assert set(images(made)) == set(files)
    assert quarantine(made) == [
        {
            "source": "0000.jpg",
            "stage": "list",
            "reason": "another image has the same name",
        }
    ]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_a_damaged_archive_is_refused(suffix, tmp_path, capsys):
    path = tmp_path / f"a{suffix}"
    files = photographs(20)
    if suffix == ".zip":
        write_zip(path, files)
    else:
        write_tar(path, files, "w:gz" if suffix == ".tar.gz" else "w")
    path.write_bytes(path.read_bytes()[:-9000])
    assert prepared.run(tmp_path, source=path) == 1
    assert "it is damaged or not complete" in capsys.readouterr().err
    assert not (tmp_path / "cats").exists()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_damaged_header_within_a_tar_is_not_taken_for_its_end(
    mode, tmp_path, capsys
):
    path = write_tar(tmp_path / "a.tar", photographs(9))
    content = bytearray(path.read_bytes())
    place = content.index(b"0004.jpg")
    content[place] ^= 1
    if mode == "w:gz":
        content = gzip.compress(content)
        path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert prepared.run(tmp_path, source=path) == 1
    assert "(bad checksum): it is damaged" in capsys.readouterr().err


def test_links_within_a_tar_are_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", photographs(3))
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "0000.jpg"
        archive.addfile(link)
    made = prepare(tmp_path, source=path, max_bad_fraction=0.3)
    (row,) = quarantine(made)
    assert row["source"] == "link.jpg"
    assert row["reason"] == "it is a link to another member"


def test_names_that_are_not_text(tmp_path):
    source = write_folder(tmp_path / "photos", photographs(2))
    latin = os.fsencode(source) + b"/caf\xe9/\xff.png"
    os.mkdir(os.path.dirname(latin))
    with open(latin, "wb") as file:
        file.write(encoded(crop(5)))
    made = prepare(tmp_path, source=source)
    assert set(images(made)) == {"0000.jpg", "0001.jpg", "caf\\xe9/\\xff.png"}


def test_a_file_too_large_or_that_is_none(tmp_path):
    source = write_folder(tmp_path / "photos", photographs(9))
    with open(source / "huge.png", "wb") as file:
        file.truncate(600 * 2**20)
    os.mkfifo(source / "pipe.png")
    (source / "lost.png").symlink_to(tmp_path / "nowhere.png")
    made = prepare(tmp_path, source=source, max_bad_fraction=0.2)
    reasons = {row["source"]: row["reason"] for row in quarantine(made)}
    assert reasons == {
        "huge.png": "it has 629,145,600 bytes",
        "lost.png": "the file cannot be read (No such file or directory)",
    }


def test_an_lmdb_like_lsuns(tmp_path):
    files = photographs(70, "WEBP") | photographs(30, "JPEG", 100)
    files |= {"empty": b""}
    source = write_lmdb(tmp_path / "church_outdoor_train_lmdb", files)
    made = prepare(tmp_path, source=source, max_bad_fraction=0.02)
    assert load_manifest(made).source.kind == "lmdb"
    assert load_manifest(made).count("train") == 100
    as_files = {name: file for name, file in files.items() if file}
    folder = write_folder(tmp_path / "folder", as_files)
    pixels = data.load_folder(folder, 16, 3)
    found = images(made)
    for key, image in zip(sorted(as_files), pixels, strict=True):
        np.testing.assert_array_equal(found[key], image)
    (row,) = quarantine(made)
    assert row == {
        "source": "empty",
        "stage": "read",
        "reason": "the file is empty",
    }


def test_the_embedded_digits(tmp_path):
    made = prepare(
        tmp_path, dataset="mnist", image_size=28, max_images=300, shards=2
    )
    found = images(made)
    digits, labels = data.embedded_digits()
    assert len(found) == 300
    for record in records(made):
        index = int(record["filename"].removeprefix("digit-"))
        np.testing.assert_array_equal(
            found[record["filename"]], digits[index, ..., 0]
        )
        assert record["label"] == labels[index]
    assert load_manifest(made).classes == tuple("0123456789")


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


# === What is there already ===


def test_the_same_command_again_does_nothing(dataset, folder, capsys):
    before = {p: p.stat().st_mtime_ns for p in dataset.iterdir()}
    flags = {"source": folder, "validation_fraction": 0.2}
    assert prepared.run(dataset.parent, **flags) == 0
    assert "is there already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in dataset.iterdir()} == before


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


# === Mistakes ===


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
        ({"quality": 96}, "quality must lie between 1 and 95"),
        ({"validation_fraction": 1.0}, "must be at least 0 and below 1"),
        ({"max_bad_fraction": 2}, "--max_bad_fraction must lie between"),
        ({"imagesize": 3}, "unknown flag --imagesize"),
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
