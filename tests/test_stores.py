"""Arrays and TFRecords as stores of images."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.photos import crop
from tests.photos import encoded
from tests.photos import write_folder
from tests.prepared import images
from tests.prepared import prepare
from transgan_tf.configs import TrainingConfig
from transgan_tf.data import load_dataset
from transgan_tf.presets import get_preset
from transgan_tf.stores import ArrayStore
from transgan_tf.stores import DataError
from transgan_tf.stores import RecordStore
from transgan_tf.stores import check_size
from transgan_tf.stores import from_array
from transgan_tf.stores import reading
from transgan_tf.stream import step_batches


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (np.zeros((2, 4, 4, 3), "float32"), "must be uint8, got float32"),
        (np.zeros((4, 4, 3), np.uint8), "got (4, 4, 3)"),
        (np.zeros((2, 4, 5, 3), np.uint8), "got (2, 4, 5, 3)"),
        (np.zeros((2, 4, 4, 4), np.uint8), "1 or 3 channels"),
        (np.zeros((0, 4, 4, 3), np.uint8), "at least one image"),
    ],
)
def test_arrays_that_are_refused(images, text):
    for function in (from_array, ArrayStore):
        with pytest.raises(DataError) as error:
            function(images)
        assert text in str(error.value)


# === TFRecords ===


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """50 crops of 9 px in 4 shards, and some for validation."""
    folder = tmp_path_factory.mktemp("data")
    files = {f"{n:02d}.png": encoded(crop(n, 9, 9)) for n in range(50)}
    source = write_folder(folder / "photos", files)
    flags = {"image_size": 9, "shards": 4, "validation_fraction": 0.2}
    return prepare(folder, source=source, **flags)


def pixels_of(store, places):
    places = tf.data.Dataset.from_tensors(np.int64(places))
    images = places.map(store.take).unbatch().map(store.decode)
    return np.stack([image.numpy() for image in images])


def test_any_image_can_be_read_at_any_time(dataset):
    store = RecordStore(dataset)
    expected = list(images(dataset).values())
    assert store.count == len(expected)
    assert (store.image_size, store.channels) == (9, 3)
    places = np.random.default_rng(0).permutation(store.count)[:30]
    found = pixels_of(store, places)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.stack(expected)[places])


def test_splits_and_workers_share_the_images(dataset):
    whole = RecordStore(dataset)
    validation = RecordStore(dataset, "validation")
    assert whole.count + validation.count == 50
    parts = [RecordStore(dataset, worker=w, workers=3) for w in range(3)]
    assert [len(part.files) for part in parts] == [2, 1, 1]
    found = np.concatenate(
        [pixels_of(part, np.arange(part.count)) for part in parts]
    )
    everything = pixels_of(whole, np.arange(whole.count))
    as_set = {image.tobytes() for image in everything}
    assert len(found) == whole.count
    assert {image.tobytes() for image in found} == as_set
    with pytest.raises(DataError, match="no image for worker 4 of 9"):
        RecordStore(dataset, worker=4, workers=9)


def test_the_stream_is_that_of_the_same_images_in_memory(dataset):
    store = RecordStore(dataset)
    array = np.stack(list(images(dataset).values()))
    training = TrainingConfig(batch_size=3, n_critic=2, steps=20)
    expected = [b.numpy() for b in step_batches(array, training)]
    found = [b.numpy() for b in step_batches(store, training)]
    np.testing.assert_array_equal(found, expected)
    rest = [b.numpy() for b in step_batches(store, training, 13)]
    np.testing.assert_array_equal(rest, expected[13:])


def test_grey_images_keep_one_channel(tmp_path):
    source = write_folder(tmp_path / "p", {"a.png": encoded(crop(1, 9, 9))})
    made = prepare(tmp_path, source=source, image_size=9, channels=1)
    (image,) = pixels_of(RecordStore(made), [0])
    assert image.shape == (9, 9, 1)
    (expected,) = images(made).values()
    np.testing.assert_array_equal(image[..., 0], expected)


def test_fingerprints_tell_datasets_apart(dataset, tmp_path):
    store = RecordStore(dataset)
    assert store.fingerprint.startswith(f"{store.count} images, SHA-256 ")
    again = RecordStore(shutil.copytree(dataset, tmp_path / "copy"))
    assert again.fingerprint == store.fingerprint
    assert RecordStore(dataset, "validation").fingerprint != store.fingerprint


@pytest.mark.parametrize("change", ["cut", "longer", "missing", "other"])
def test_files_that_are_not_the_manifests_are_refused(
    change, dataset, tmp_path
):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    path = folder / "train-00002-of-00004.tfrecord"
    content = path.read_bytes()
    path.write_bytes(
        {"cut": content[:-9], "longer": content * 2}.get(change, b"")
    )
    if change == "missing":
        path.unlink()
    with pytest.raises(DataError) as error:
        RecordStore(folder)
    assert f"{path} is damaged or missing" in str(error.value)
    assert f"pipeline.verify --dataset_dir={folder}" in str(error.value)


def test_an_image_that_cannot_be_decoded_is_one_sentence(dataset, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    for path in folder.glob("train-*"):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"\x89PNG", b"\x88PNG"))
    training = TrainingConfig(batch_size=3, n_critic=2)
    with pytest.raises(DataError) as error, reading():
        next(iter(step_batches(RecordStore(folder), training)))
    told = str(error.value)
    assert told.startswith("an image cannot be read (Unknown image file form")
    assert "pipeline.verify" in told and "\n" not in told


def test_a_file_that_is_lost_meanwhile_is_one_sentence(dataset, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    store = RecordStore(folder)
    shutil.rmtree(folder)
    training = TrainingConfig(batch_size=3, n_critic=2)
    with pytest.raises(DataError, match="read .*No such file or"), reading():
        next(iter(step_batches(store, training)))


def test_errors_of_other_operations_are_what_they_are():
    @tf.function
    def check(batches):
        tf.debugging.assert_less(next(batches), 3)

    batches = iter(tf.data.Dataset.from_tensors(7))
    with pytest.raises(tf.errors.InvalidArgumentError), reading():
        check(batches)


@pytest.mark.parametrize(
    ("operations", "from_data"),
    [
        ("[[{{node PyFunc}}]]\n\t [[IteratorGetNext]] [Op:__inference_f_1]", 1),
        ("[[{{node PyFunc}}]]\n\t [[RemoteCall]]\n\t [[IteratorGetNext_1]]", 1),
        ("[[{{node while/IteratorGetNext}}]]", 1),
        ("[[{{node PyFunc}}]] [Op:IteratorGetNext] name: ", 1),
        ("[[{{node MatMul}}]]\n\t [[IteratorGetNext/_7]]", 0),
        ("[[{{node IteratorGetNextAsOptional}}]]", 0),
        ("[[{{node MatMul}}]] [Op:__inference_f_1]", 0),
    ],
)
def test_whose_error_it_is_shows_in_the_operations(operations, from_data):
    message = f"Graph execution error:\n\nno such thing\n\t {operations}"
    expected = DataError if from_data else tf.errors.UnknownError
    with pytest.raises(expected, match="no such thing"), reading():
        raise tf.errors.UnknownError(None, None, message)


def test_sizes_are_compared_with_the_networks(dataset):
    config = get_preset("cifar10").config
    with pytest.raises(DataError) as error:
        check_size(RecordStore(dataset), config)
    assert str(error.value) == (
        "the images have 9 x 9 px in colour, and the networks take 32 x 32 px "
        "in colour: prepare images of that size, or choose another --preset"
    )


def test_a_dataset_is_found_by_name_and_by_path(dataset):
    config = get_preset("cifar10").config
    for name in ("cats", str(dataset)):
        store = load_dataset(name, dataset.parent, config)
        assert store.fingerprint == RecordStore(dataset).fingerprint


def test_a_job_that_has_not_ended_is_no_dataset(dataset, tmp_path):
    folder = shutil.copytree(dataset, tmp_path / "copy")
    (folder / "manifest.json").unlink()
    (tmp_path / "cut" / f".work-{'0' * 32}").mkdir(parents=True)
    write_folder(tmp_path / "failed", {"quarantine.jsonl": b"{}"})
    config = get_preset("cifar10").config
    with pytest.raises(DataError, match="has no manifest.json, so the job"):
        load_dataset("copy", tmp_path, config)
    for name in ("cut", "failed"):
        with pytest.raises(DataError, match="has not ended well"):
            load_dataset(name, tmp_path, config)
