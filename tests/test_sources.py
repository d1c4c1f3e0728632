"""Sources of the preprocessing job: folders, archives, LMDB, digits."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests import prepared
from tests.photos import crop
from tests.photos import encoded
from tests.photos import photographs
from tests.photos import write_folder
from tests.photos import write_lmdb
from tests.photos import write_tar
from tests.photos import write_zip
from tests.prepared import images
from tests.prepared import prepare
from tests.prepared import quarantine
from tests.prepared import records
from transgan_tf import data
from transgan_tf.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]


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


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_zeroed_header_within_a_tar_is_not_taken_for_its_end(
    mode, tmp_path, capsys
):
    path = write_tar(tmp_path / "a.tar", photographs(9))
    with tarfile.open(path) as archive:
        place = archive.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[place : place + 512] = bytes(512)
    if mode == "w:gz":
        content = gzip.compress(content)
        path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    assert prepared.run(tmp_path, source=path) == 1
    error = capsys.readouterr().err
    assert "(more follows the mark of its end): it is damaged" in error
    assert not (tmp_path / "cats").exists()


def test_zeros_after_the_end_of_a_tar_and_parts_of_its_compression(tmp_path):
    files = photographs(9)
    content = write_tar(tmp_path / "a.tar", files).read_bytes()
    (tmp_path / "a.tar").write_bytes(content + bytes(99_999))
    # As programs make them that compress in parallel.
    parts = gzip.compress(content[:9000]) + gzip.compress(content[9000:])
    (tmp_path / "a.tar.gz").write_bytes(parts)
    for name in ("a.tar", "a.tar.gz"):
        made = prepare(tmp_path / name[2:], source=tmp_path / name)
        assert set(images(made)) == set(files)


def test_a_compressed_tar_whose_checksum_is_wrong(tmp_path, capsys):
    path = write_tar(tmp_path / "a.tar.gz", photographs(9), "w:gz")
    content = bytearray(path.read_bytes())
    # The checksum, which the length follows.
    content[-8] ^= 1
    path.write_bytes(content)
    assert prepared.run(tmp_path, source=path) == 1
    assert "(CRC check failed" in capsys.readouterr().err


# Where an entry of a zip archive's directory holds these.
VERSION, NAME = 6, 46


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [(VERSION, 200, "zip file version 20.0"), (NAME, 255, "'utf-8' codec")],
)
def test_a_zip_whose_directory_is_damaged(
    place, value, reason, tmp_path, capsys
):
    path = write_zip(tmp_path / "a.zip", {"é.png": encoded(crop(1))})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + place] = value
    path.write_bytes(content)
    assert prepared.run(tmp_path, source=path) == 1
    error = capsys.readouterr().err
    assert f"cannot be read as a zip archive ({reason}" in error


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


LAST_PAGES = 2 * 4096


@pytest.mark.parametrize(
    "kept",
    [lambda n: n // 2, lambda n: n * 9 // 10, lambda n: n - LAST_PAGES],
    ids=["half", "nine tenths", "all but two pages"],
)
def test_an_lmdb_that_breaks_off_is_refused(kept, tmp_path):
    source = write_lmdb(tmp_path / "a_lmdb", photographs(100, "WEBP"))
    size = os.path.getsize(source / "data.mdb")
    os.truncate(source / "data.mdb", kept(size))
    words = ["--dataset=cats", "--image_size=16", f"--source={source}"]
    # A process of its own, since reading on would kill it by a signal.
    result = subprocess.run(
        [sys.executable, "-m", "pipeline.preprocess", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1, result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        f"error: {source} is not complete, since data.mdb has "
        f"{kept(size):,} bytes where its pages take {size:,}: fetch it again"
    )
    assert not (tmp_path / "data").exists()


def test_what_is_no_lmdb(tmp_path, capsys):
    source = write_folder(tmp_path / "a_lmdb", {"data.mdb": b"x" * 50_000})
    assert prepared.run(tmp_path, source=source) == 1
    error = capsys.readouterr().err
    assert "cannot be read as an LMDB environment (" in error


def test_an_lmdb_value_that_is_too_large(tmp_path, monkeypatch):
    files = photographs(8) | {"huge": encoded(crop(9), "BMP")}
    source = write_lmdb(tmp_path / "a_lmdb", files)
    limit = len(files["huge"]) - 1
    monkeypatch.setattr("pipeline.sources.base.LARGEST_FILE", limit)
    made = prepare(tmp_path, source=source, max_bad_fraction=0.2)
    (row,) = quarantine(made)
    assert row["source"] == "huge"
    assert row["stage"] == "read"
    assert row["reason"] == f"it has {limit + 1:,} bytes"


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
