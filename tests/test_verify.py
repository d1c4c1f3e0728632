"""The dataset check: sound datasets pass, every kind of damage is named."""

import dataclasses
import json
import shutil
import sys

import pytest

from pipeline import verify
from pipeline.layout import digest_of
from pipeline.layout import shard_of
from pipeline.tfrecord import frame
from pipeline.tfrecord import read_records
from tests.photos import crop
from tests.photos import encoded
from tests.photos import write_folder
from tests.prepared import prepare
from transgan_tf.manifest import load_manifest
from transgan_tf.records import decode
from transgan_tf.records import encode


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """24 images of two classes in 2 shards and 1 for validation."""
    folder = tmp_path_factory.mktemp("data")
    files = {
        f"{'ab'[n % 2]}/{n}.png": encoded(crop(n, 16, 16)) for n in range(24)
    }
    source = write_folder(folder / "photos", files)
    flags = {"shards": 2, "validation_fraction": 0.3}
    return prepare(folder, source=source, **flags)


@pytest.fixture
def dataset(sound, tmp_path):
    """A copy, to be damaged."""
    return shutil.copytree(sound, tmp_path / "cats")


def check(folder, capsys, *flags):
    """Returns the command's status, and its last line."""
    status = verify.main([f"--dataset_dir={folder}", *flags])
    captured = capsys.readouterr()
    return status, (captured.out + captured.err).strip().splitlines()[-1]


FIRST = "train-00000-of-00002.tfrecord"


def read_shard(folder, name=FIRST):
    with open(folder / name, "rb") as file:
        return list(read_records(file))


def write_shard(folder, records, name=FIRST):
    """Writes records as a shard, and the manifest as if it were right."""
    (folder / name).write_bytes(b"".join(map(frame, records)))
    mend_manifest(folder)


def mend_manifest(folder):
    """Makes sizes, numbers and hashes those of the files."""
    import hashlib

    path = folder / "manifest.json"
    content = json.loads(path.read_bytes())
    for shard in content["shards"]:
        file = (folder / shard["name"]).read_bytes()
        shard["bytes"] = len(file)
        shard["sha256"] = hashlib.sha256(file).hexdigest()
        shard["count"] = len(read_shard(folder, shard["name"]))
    path.write_text(json.dumps(content))


def changed(record, **values):
    return encode(**decode(record) | values)


@pytest.mark.parametrize("flags", [(), ("--fast",)])
def test_a_sound_dataset_passes(sound, capsys, flags):
    status, line = check(sound, capsys, *flags)
    manifest = load_manifest(sound)
    train, validation = manifest.count("train"), manifest.count("validation")
    assert (status, train + validation) == (0, 24)
    assert line == f"{sound} is sound: {train} train, {validation} validation"


@pytest.mark.parametrize("flags", [(), ("--fast",)])
@pytest.mark.parametrize("place", [20, 1000, -1])
def test_a_changed_byte_is_named(dataset, capsys, place, flags):
    content = bytearray((dataset / FIRST).read_bytes())
    content[place] ^= 4
    (dataset / FIRST).write_bytes(content)
    status, line = check(dataset, capsys, *flags)
    last = len(read_shard_safely(dataset)) if place == -1 else place // 1000
    assert status == 1
    assert line == f"error: {FIRST}, record {last}: its checksum is wrong"


def read_shard_safely(folder):
    """Returns the records before the first broken one."""
    records = []
    with open(folder / FIRST, "rb") as file, pytest.raises(ValueError):
        for record in read_records(file):
            records.append(record)
    return records


def test_a_file_that_breaks_off_or_is_missing(dataset, capsys):
    content = (dataset / FIRST).read_bytes()
    (dataset / FIRST).write_bytes(content[:-7])
    status, line = check(dataset, capsys, "--fast")
    assert status == 1
    assert line.endswith("the file breaks off")
    (dataset / FIRST).unlink()
    assert check(dataset, capsys) == (1, f"error: {FIRST} is missing")


def test_a_lost_record_is_found_by_number_and_hash(dataset, capsys):
    records = read_shard(dataset)[:-1]
    (dataset / FIRST).write_bytes(b"".join(map(frame, records)))
    status, line = check(dataset, capsys, "--fast")
    assert status == 1
    assert f"{FIRST} has {len(records)} records" in line
    assert f"and the manifest says {len(records) + 1} records" in line


def test_another_file_among_the_shards(dataset, capsys):
    name = "train-00002-of-00003.tfrecord"
    shutil.copy(dataset / FIRST, dataset / name)
    expected = f"error: {name} is not in manifest.json"
    assert check(dataset, capsys) == (1, expected)


def other_checksum(png):
    """Returns the file with the checksum of its pixels changed."""
    return png[:-13] + bytes([png[-13] ^ 1]) + png[-12:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoded": encoded(crop(1, 16, 17))}, "its size is (17, 16), not"),
        ({"encoded": encoded(crop(1, 16, 16)[..., 0])}, "its mode is L, not"),
        ({"encoded": encoded(crop(1, 16, 16))[:99]}, "cannot be decoded"),
        ({"encoded": encoded(crop(1, 16, 16))[:-12]}, "its image is damaged"),
        (
            {"encoded": other_checksum(encoded(crop(1, 16, 16)))},
            "its image is damaged",
        ),
        ({"height": 17}, "its size is"),
        (
            {"encoded": encoded(crop(1, 16, 16), "JPEG"), "format": "jpeg"},
            "it is jpeg, not png",
        ),
        ({"label": 2}, "its label 2 has no class"),
    ],
)
def test_a_record_that_is_not_as_promised(dataset, capsys, change, reason):
    records = read_shard(dataset)
    records[2] = changed(records[2], **change)
    write_shard(dataset, records)
    assert check(dataset, capsys, "--fast")[0] == 0
    status, line = check(dataset, capsys)
    assert status == 1
    assert line.startswith(f"error: {FIRST}, record 2: ")
    assert reason in line


def test_a_jpeg_whose_end_is_damaged(tmp_path, capsys):
    files = {f"{n}.png": encoded(crop(n, 16, 16)) for n in range(3)}
    source = write_folder(tmp_path / "photos", files)
    dataset = prepare(tmp_path, source=source, format="jpeg", shards=1)
    assert check(dataset, capsys)[0] == 0
    name = "train-00000-of-00001.tfrecord"
    records = read_shard(dataset, name)
    image = decode(records[1])["encoded"]
    records[1] = changed(records[1], encoded=image[:-2] + bytes(2))
    write_shard(dataset, records, name)
    status, line = check(dataset, capsys)
    assert status == 1
    assert line.startswith(f"error: {name}, record 1: its image is damaged")


def test_bytes_that_are_no_example(dataset, capsys):
    write_shard(dataset, [b"\xff no example", *read_shard(dataset)])
    status, line = check(dataset, capsys)
    assert status == 1
    assert line == f"error: {FIRST}, record 0: a record must be a tf.Example"


def test_keys_that_are_twice_elsewhere_or_out_of_order(dataset, capsys):
    records = read_shard(dataset)
    key = decode(records[1])["filename"]
    write_shard(dataset, [records[0], records[1], *records[1:]])
    _, line = check(dataset, capsys)
    assert line == f"error: {FIRST}, record 2: {key!r} is there twice"
    write_shard(dataset, [records[1], records[0], *records[2:]])
    _, line = check(dataset, capsys)
    assert line.endswith("is out of order")
    settings = load_manifest(dataset).settings
    names = (f"{n}.png" for n in range(99))
    other = next(n for n in names if shard_of(digest_of(n), settings) != FIRST)
    write_shard(dataset, [changed(records[0], filename=other), *records[1:]])
    _, line = check(dataset, capsys)
    assert f"record 0: {other!r} belongs into" in line


def test_statistics_that_are_not_of_these_images(dataset, capsys):
    records = read_shard(dataset)
    records[0] = changed(records[0], encoded=encoded(crop(999, 16, 16)))
    write_shard(dataset, records)
    status, line = check(dataset, capsys)
    assert status == 1
    assert line.startswith("error: statistics.json says channels = ")
    (dataset / "statistics.json").write_text("{")
    assert "statistics.json cannot be read" in check(dataset, capsys)[1]


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_statistics_that_are_no_object(dataset, capsys, content):
    (dataset / "statistics.json").write_text(content)
    status, line = check(dataset, capsys)
    assert (status, line) == (1, "error: statistics.json holds no object")


def test_beam_that_is_not_installed(dataset, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert check(dataset, capsys) == (
        1,
        "error: the package apache_beam is missing: "
        "pip install -e '.[pipeline]'",
    )


def test_what_is_no_dataset(tmp_path, capsys):
    status, line = check(tmp_path, capsys)
    assert status == 1
    assert "is not a dataset, since it has no manifest.json" in line
    (tmp_path / "manifest.json").write_text("{}")
    assert "cannot be used (" in check(tmp_path, capsys)[1]


def test_a_manifest_that_lacks_shards(dataset, capsys):
    path = dataset / "manifest.json"
    manifest = load_manifest(dataset)
    fewer = dataclasses.replace(manifest, shards=manifest.shards[1:])
    path.write_text(fewer.to_json())
    _, line = check(dataset, capsys)
    assert line == "error: manifest.json does not name all shards that it must"
