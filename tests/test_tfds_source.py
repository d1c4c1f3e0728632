"""Builders of tensorflow-datasets as sources; they import TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests import prepared
from tests.photos import crop
from tests.prepared import images
from tests.prepared import prepare
from tests.prepared import quarantine
from tests.prepared import records
from transgan_tf.manifest import load_manifest

COUNTS = {"train": 37, "unlabelled": 5}
BUILDER = {"source": "crops", "source_type": "tfds"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """An own builder `crops`, as a user may have prepared it."""
    folder = tmp_path_factory.mktemp("tfds")
    splits, first = {}, 0
    for name, count in COUNTS.items():
        numbers = np.arange(first, first + count)
        labels = numbers % 2 if name == "train" else np.full(count, -1)
        pixels = np.stack([crop(n, 16, 16) for n in numbers])
        splits[name] = tf.data.Dataset.from_tensor_slices(
            {"image": pixels, "label": labels}
        )
        first += count
    tfds.dataset_builders.store_as_tfds_dataset(
        name="crops",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(16, 16, 3)),
                "label": tfds.features.ClassLabel(names=["sky", "leaf"]),
            }
        ),
        split_datasets=splits,
        data_dir=str(folder),
    )
    return folder


def test_files_are_kept_as_the_builder_stored_them(data_dir, tmp_path):
    made = prepare(
        tmp_path,
        **BUILDER,
        tfds_data_dir=data_dir,
        split="train+unlabelled",
    )
    manifest = load_manifest(made)
    assert manifest.source.kind == "tfds"
    assert manifest.source.count == manifest.count("train") == 42
    assert manifest.classes == ("sky", "leaf")
    stored = {}
    builder = tfds.builder("crops", data_dir=data_dir)
    config = tfds.ReadConfig(add_tfds_id=True)
    for split in COUNTS:
        dataset = builder.as_dataset(
            split=split,
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=config,
        )
        for example in tfds.as_numpy(dataset):
            stored[example["tfds_id"].decode()] = example
    assert len(stored) == 42
    for record in records(made):
        example = stored[record["filename"]]
        assert record["encoded"] == example["image"]
        label = None if example["label"] < 0 else example["label"]
        assert record["label"] == label


def test_other_sizes_are_resized(data_dir, tmp_path):
    made = prepare(
        tmp_path,
        **BUILDER,
        tfds_data_dir=data_dir,
        image_size=8,
        direct_running_mode="multi_processing",
        direct_num_workers=2,
    )
    found = images(made)
    assert len(found) == COUNTS["train"]
    assert {image.shape for image in found.values()} == {(8, 8, 3)}
    assert np.mean([image.mean() for image in found.values()]) > 1


def test_a_file_that_is_too_large(data_dir, tmp_path, monkeypatch):
    limit = 400
    monkeypatch.setattr("pipeline.sources.base.LARGEST_FILE", limit)
    made = prepare(
        tmp_path, **BUILDER, tfds_data_dir=data_dir, max_bad_fraction=0.99
    )
    sizes = [len(record["encoded"]) for record in records(made)]
    reasons = [row["reason"] for row in quarantine(made)]
    assert len(sizes) + len(reasons) == COUNTS["train"]
    assert max(sizes) <= limit
    large = [int(reason.split()[2]) for reason in reasons]
    assert reasons == [f"it has {size} bytes" for size in large]
    assert min(large) > limit


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"split": "test"}, "has no split 'test': its splits are train, unl"),
        ({"split": "train[:5]"}, "has no split 'train[:5]'"),
        ({"source": "crps"}, "tensorflow-datasets cannot provide crps"),
    ],
)
def test_what_a_builder_does_not_have(
    flags, sentence, data_dir, tmp_path, capsys
):
    flags = BUILDER | flags
    assert prepared.run(tmp_path, tfds_data_dir=data_dir, **flags) == 1
    assert sentence in capsys.readouterr().err


def test_a_name_that_nobody_knows(tmp_path, capsys):
    assert prepared.run(tmp_path, source="nothing_such") == 1
    assert "nor the name of a tensorflow-datasets" in capsys.readouterr().err
