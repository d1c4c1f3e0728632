"""Layout, statistics, TFRecord frames and spilled images."""

import io

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
from apache_beam.testing.util import assert_that
from apache_beam.testing.util import equal_to

from pipeline import layout
from pipeline.layout import digest_of
from pipeline.results import LABEL
from pipeline.spill import OPEN_FILES
from pipeline.spill import Entry
from pipeline.spill import SpillReader
from pipeline.spill import SpillWriter
from pipeline.spill import spilled_images
from pipeline.statistics import Statistics
from pipeline.tfrecord import BrokenRecord
from pipeline.tfrecord import frame
from pipeline.tfrecord import read_records
from pipeline.transforms import LabelFolders
from transgan_tf.manifest import DatasetSettings

# === TFRecord ===

RECORDS = [b"", b"abc", bytes(range(256)) * 50]


def test_tensorflow_reads_what_we_write(tmp_path):
    path = tmp_path / "ours.tfrecord"
    path.write_bytes(b"".join(map(frame, RECORDS)))
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    assert read == RECORDS


def test_we_read_what_tensorflow_writes(tmp_path):
    path = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert path.read_bytes() == b"".join(map(frame, RECORDS))
    with open(path, "rb") as file:
        assert list(read_records(file)) == RECORDS


@pytest.mark.parametrize(
    ("place", "index", "reason"),
    [
        (16, 1, "its length has a wrong checksum"),
        (24, 1, "its length has a wrong checksum"),
        (29, 1, "its checksum is wrong"),
        (-1, 2, "its checksum is wrong"),
    ],
)
def test_a_changed_byte_is_found(place, index, reason):
    content = bytearray(b"".join(map(frame, RECORDS)))
    content[place] ^= 1
    with pytest.raises(BrokenRecord, match=f"record {index}: {reason}"):
        list(read_records(io.BytesIO(content)))


@pytest.mark.parametrize("cut", [1, 5, 12_000])
def test_a_file_that_breaks_off_is_found(cut):
    content = b"".join(map(frame, RECORDS))[:-cut]
    with pytest.raises(BrokenRecord, match="record 2: the file breaks off"):
        list(read_records(io.BytesIO(content)))


# === Layout ===


def test_a_key_stays_where_it_is():
    # sha256 of "a.png" begins with these bytes.
    digest = digest_of("a.png")
    place = int.from_bytes(digest[:8], "big") / 2**64
    index = int.from_bytes(digest[8:16], "big") % 7
    one = DatasetSettings(8, shards=7, validation_fraction=place + 1e-9)
    assert layout.shard_of(digest, one).startswith("validation-")
    other = DatasetSettings(8, shards=7, validation_fraction=place - 1e-9)
    name = f"train-{index:05d}-of-00007.tfrecord"
    assert layout.shard_of(digest, other) == name


def test_shards_and_splits_get_their_shares():
    settings = DatasetSettings(8, shards=5, validation_fraction=0.3)
    names = layout.shard_names(settings)
    assert names[0] == "train-00000-of-00005.tfrecord"
    assert names[-1] == "validation-00001-of-00002.tfrecord"
    assert names == sorted(names)
    counts = dict.fromkeys(names, 0)
    for number in range(5000):
        counts[layout.shard_of(digest_of(f"{number}.png"), settings)] += 1
    train = [counts[name] for name in names[:5]]
    # Standard deviation of 700 of 5,000: 25.
    assert all(600 < count < 800 for count in train)
    assert 1400 < 5000 - sum(train) < 1600


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["cat", "dog"], {"cat": 0, "dog": 1}),
        (["dog", "cat/big"], {"cat/big": 0, "dog": 1}),
        (
            ["x/cat/1", "x/cat/2", "x/dog"],
            {"x/cat/1": 0, "x/cat/2": 0, "x/dog": 1},
        ),
        (["img_align_celeba"], {}),
        ([".", "cat"], {}),
        (["x", "x/cat", "x/dog"], {}),
        (["."], {}),
        ([], {}),
    ],
)
def test_folders_give_labels(folders, labels):
    assert layout.labels_by_folder(folders) == labels
    expected = ("cat", "dog") if labels else ()
    assert layout.class_names(folders) == expected


def test_a_shard_gets_the_labels_that_it_needs_alone():
    settings = DatasetSettings(8, shards=100)
    keys = [f"{n % 150:03d}/{n}.png" for n in range(300)]
    entries = [Entry(k, b"", None, "", 0, 0).pack() for k in keys]
    folders = sorted({layout.folder_of(key) for key in keys})
    expected = {
        (layout.shard_of(digest_of(key), settings), layout.folder_of(key))
        for key in keys
    }
    with beam.Pipeline("FnApiRunner") as pipeline:
        inputs = (
            pipeline | "Entries" >> beam.Create(entries),
            pipeline | "Folders" >> beam.Create(folders),
        )
        assert_that(
            inputs | LabelFolders(settings),
            equal_to(
                [
                    (shard, (LABEL, (folder, int(folder))))
                    for shard, folder in expected
                ]
            ),
        )


# === Statistics ===


def test_statistics_by_hand_and_in_any_order():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 7, 2), np.uint8)
    parts = []
    for number, image in enumerate(images):
        part = Statistics()
        counts = [np.bincount(c.ravel(), minlength=256) for c in image.T]
        size = (100 + number, 64 * number)
        part.add_image(np.array(counts), number % 2, size)
        parts.append(part)
    total, backwards = Statistics(), Statistics()
    for part, other in zip(parts, parts[::-1], strict=True):
        total.add(part)
        backwards.add(other)
    assert total == backwards
    for channel, row in enumerate(total.channels()):
        values = images[..., channel].astype("float64")
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert row["deviation"] == pytest.approx(values.std(), rel=1e-12)
    assert total.shorter_side_bins() == {"0-63": 1, "64-127": 4}
    assert total.label_counts(("a", "b")) == {"a": 3, "b": 2}


# === Spilled images ===


def test_what_is_spilled_is_found_again(tmp_path):
    writers = [SpillWriter(str(tmp_path)) for _ in range(OPEN_FILES + 3)]
    entries = []
    for number, writer in enumerate(writers):
        for part in range(2):
            stored = f"{number}-{part}".encode()
            writer.add(f"{number}/{part}", b"content", part, stored)
            writer.note(bad=part == 1)
        entries += list(writer.flush())
        assert list(writer.flush()) == []
    assert spilled_images(str(tmp_path)) == (2 * len(writers), len(writers))
    reader = SpillReader(str(tmp_path))
    for entry in entries[::-1] + entries[::2]:
        assert reader.read(entry).decode() == entry.key.replace("/", "-")
    assert len(reader.open) == OPEN_FILES
    reader.close()
    assert entries[3].label == 1
