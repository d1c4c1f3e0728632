"""Versions on disk, loaded and switched in this process."""

import contextlib
import json
import shutil
import threading
import time
import weakref

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving import export
from serving import models
from serving import predict
from serving import replay
from serving import versions
from serving.errors import CallError
from serving.models import Model
from serving.monitoring import Metrics
from serving.servable import Servable
from serving.service import Limits
from serving.service import Service
from serving.versions import VersionError
from serving.versions import write_card
from serving.warmup import REQUESTS
from tests.serving.processes import exported_version
from tests.serving.tiny_versions import known_latents
from tests.serving.tiny_versions import write_warmup
from transgan_tf.presets import get_preset

LATEST = model_pb2.ModelSpec(name="faces")


@pytest.fixture
def folder(tmp_path):
    """A folder with version 3."""
    shutil.copytree(exported_version(), tmp_path / "3")
    return tmp_path


@pytest.fixture
def model(folder):
    model = Model("faces", folder, retry_seconds=3600)
    yield model
    model.close()


def states(model):
    return {number: state for number, state, _ in model.states("faces")}


def test_a_version_in_use_is_unloaded_after_its_last_call(model, folder):
    model.poll()
    with model.use(LATEST) as version, model.use(LATEST):
        shutil.rmtree(folder / "3")
        model.poll()
        assert states(model) == {3: "UNLOADING"}
        with pytest.raises(CallError, match=r"Latest\(faces\)"):
            model._take(LATEST)
        signature = version.servable.signatures["serving_default"]
        inputs = {"latents": known_latents(1)}
        assert version.servable.run(signature, inputs)["images"].size
    # Not by the last caller, which may be the event loop.
    assert states(model) == {3: "UNLOADING"}
    assert version.servable is not None
    model.poll()
    assert states(model) == {3: "END"}
    assert version.servable is None


def test_labels_keep_versions_loaded(folder):
    shutil.copytree(folder / "3", folder / "5")
    model = Model("faces", folder, labels={"stable": 3, "canary": 4})
    model.poll()
    assert states(model) == {5: "AVAILABLE", 3: "AVAILABLE"}
    numbers = {"stable": 3, None: 5}
    for label, number in numbers.items():
        spec = model_pb2.ModelSpec(name="faces", version_label=label)
        with model.use(spec) as version:
            assert version.number == number
    spec = model_pb2.ModelSpec(name="faces", version_label="canary")
    with pytest.raises(CallError, match=r"Specific\(faces, 4\)"):
        model._take(spec)
    model.close()
    assert states(model) == {5: "END", 3: "END"}


def test_a_failed_load_is_tried_again_later(model, folder):
    model.poll()
    (folder / "4").mkdir()
    model.poll()
    (row, _) = model.states("faces")
    assert row[:2] == (4, "END")
    assert "saved_model.pb" in row[2].message
    assert states(model)[3] == "AVAILABLE"
    # Mended in place: nothing happens before its time has come.
    shutil.copytree(folder / "3", folder / "4", dirs_exist_ok=True)
    model.poll()
    assert states(model) == {4: "END", 3: "AVAILABLE"}
    model.retry_seconds = 0
    model._versions[4].next_attempt = 0
    model.poll()
    assert states(model) == {4: "AVAILABLE", 3: "END"}
    assert model.states("faces", 4)[0][2] is None


def test_a_load_that_always_fails_is_given_up(model, folder):
    shutil.rmtree(folder / "3")
    (folder / "4").mkdir()
    model.retry_seconds = 0
    for _ in range(models.MOST_ATTEMPTS + 2):
        model.poll()
    assert model._versions[4].attempts == models.MOST_ATTEMPTS
    assert not model.available.is_set()
    # Put back under the same number, it is another version.
    (folder / "4").rmdir()
    model.poll()
    shutil.copytree(exported_version(), folder / "4")
    model.poll()
    assert states(model) == {4: "AVAILABLE"}
    assert model.available.is_set()


def test_a_failed_load_leaves_nothing_in_memory(model, folder, monkeypatch):
    loaded = []

    class Noted(Servable):
        def __init__(self, path):
            super().__init__(path)
            loaded.append(weakref.ref(self))

    monkeypatch.setattr(models, "Servable", Noted)
    # Fails with an error of our own, and with one of TensorFlow's.
    for inputs in ({"noise": [1.0]}, {"latents": np.zeros((2, 4), "float32")}):
        write_warmup(folder / "3", **inputs)
        model.retry_seconds = 0
        model.poll()
        ((_, state, error),) = model.states("faces")
        assert state == "END" and error.message
    assert len(loaded) == 2
    assert not any(servable() for servable in loaded)


def test_why_there_is_nothing_to_serve_is_told_once(tmp_path, caplog):
    folder = tmp_path / "faces"
    model = Model("faces", folder)
    steps = {
        "faces cannot be read (No such file": lambda: None,
        "No versions of servable faces found under base path": folder.mkdir,
        "faces cannot be read (Not a dir": lambda: replace_by_file(folder),
    }
    for sentence, step in steps.items():
        step()
        caplog.clear()
        for _ in range(3):
            model.poll()
        (record,) = caplog.records
        assert sentence in record.message
    folder.unlink()
    shutil.copytree(exported_version(), folder / "1")
    caplog.clear()
    model.poll()
    shutil.rmtree(folder / "1")
    model.poll()
    levels = [r.levelname for r in caplog.records if "No versions" in r.message]
    assert levels == ["WARNING"]
    model.close()


def replace_by_file(folder):
    folder.rmdir()
    folder.touch()


def test_the_card_says_how_many_images_fit_into_memory(folder):
    assert models.read_most_rows(folder / "3") == 64
    for name, rows in (("celeba_hq", 4), ("mnist", 64)):
        card = {"config": get_preset(name).config.to_dict()}
        write_card(folder / "3", card)
        assert models.read_most_rows(folder / "3") == rows
    for card in ({}, [1], {"config": {"x": 1}}):
        write_card(folder / "3", card)
        assert models.read_most_rows(folder / "3") == 64


def test_a_version_limits_its_batches(model, folder):
    card = {"config": get_preset("celeba_hq").config.to_dict()}
    write_card(folder / "3", card)
    model.poll()
    document = {"instances": known_latents(5).tolist()}
    sentence = "latents has 5 rows, more than the 4 of a batch"
    for most, error in (
        (0, pytest.raises(CallError, match=sentence)),
        (5, None),
    ):
        limits = Limits(2**25, most, 30, 30)
        service = Service(model, None, Metrics(), limits)
        body = json.dumps(document).encode()
        with error or contextlib.nullcontext():
            service.predict_json(LATEST, body, None)
        request = predict_pb2.PredictRequest(model_spec=LATEST)
        tensor = tf.make_tensor_proto(known_latents(5))
        request.inputs["latents"].CopyFrom(tensor)
        with error or contextlib.nullcontext():
            service.predict(request, None)


def test_rows_are_counted_before_they_are_decoded(model):
    model.poll()
    service = Service(model, None, Metrics(), Limits(2**25, 3, 30, 30))
    # Decoded, the last row would be the mistake.
    rows = [[1], [1], [1], "x"]
    named = [{"latents": row} for row in rows]
    for document in (
        {"instances": rows},
        {"instances": named},
        {"inputs": rows},
        {"inputs": {"latents": rows}},
    ):
        body = json.dumps(document).encode()
        with pytest.raises(CallError, match="has 4 rows, more than the 3"):
            service.predict_json(LATEST, body, None)


def test_a_deadline_ends_the_run(model):
    model.poll()
    service = Service(model, None, Metrics(), Limits(2**27, 10**6, 30, 30))
    request = predict_pb2.PredictRequest(model_spec=LATEST)
    tensor = tf.make_tensor_proto(known_latents(50_000))
    request.inputs["latents"].CopyFrom(tensor)
    with pytest.raises(tf.errors.DeadlineExceededError):
        service.predict(request, time.monotonic() + 0.1)
    with pytest.raises(CallError, match="the deadline has passed"):
        service.predict(request, time.monotonic())


def test_a_version_that_is_published_is_not_called_unpublished(
    folder, monkeypatch
):
    shutil.copytree(folder / "3", folder / "4")

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(versions, "prune", fail)
    words = r"5 was published, but older .* \(Input/output error\)"
    with pytest.raises(VersionError, match=words):
        export.rollback(folder, keep=1)
    sync = versions._sync
    monkeypatch.setattr(
        versions, "_sync", lambda path: fail() if path == folder else sync(path)
    )
    staged = folder / ".staging-x"
    staged.mkdir()
    words = r"a version was published in .*\(Input/output error\)"
    with pytest.raises(VersionError, match=words):
        export._publish(staged)
    assert sorted(versions.find_versions(folder)) == [3, 4, 5, 6]


def test_the_watcher_finds_a_first_version(tmp_path):
    model = Model("faces", tmp_path / "faces", poll_seconds=0.01)
    model.start()
    assert not model.available.is_set()
    staging = shutil.copytree(exported_version(), tmp_path / "staging")
    (tmp_path / "faces").mkdir()
    staging.rename(tmp_path / "faces" / "1")
    assert model.available.wait(60)
    model.close()
    assert states(model) == {1: "END"}
    names = {thread.name for thread in threading.enumerate()}
    assert "versions" not in names


def test_warm_up_requests_are_run(folder):
    version = folder / "3"
    servable = models.load(version)
    assert replay.replay(servable, version) == 0
    write_warmup(version, latents=known_latents(2))
    assert replay.replay(servable, version) == 1
    path = version / REQUESTS
    record = next(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    # An empty message is a request of no kind, and passed over.
    cases = {
        "Failed to parse warmup record": [b"\xff"],
        "Unsupported log_type": [_regression()],
        "input size does not match": [_without_inputs(record)],
        "exceeds the maximum": [b""] * 1001,
    }
    for message, records in cases.items():
        with tf.io.TFRecordWriter(str(path)) as writer:
            for each in records:
                writer.write(each)
        with pytest.raises(CallError, match=message):
            replay.replay(servable, version)
    path.write_bytes(b"no records" * 9)
    with pytest.raises(tf.errors.DataLossError):
        replay.replay(servable, version)
    servable.close()


def _regression():
    log = prediction_log_pb2.PredictionLog()
    log.regress_log.request.model_spec.name = "faces"
    return log.SerializeToString()


def _without_inputs(record):
    log = prediction_log_pb2.PredictionLog.FromString(record)
    log.predict_log.request.inputs.clear()
    return log.SerializeToString()


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64", "float16", "int64", "uint8", "bool", "complex64"],
)
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3), (300, 1)])
def test_messages_are_tensorflow_s(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    message = predict.to_message(array)
    assert message.dtype == tf.as_dtype(dtype).as_datatype_enum
    if array.size > 1:
        assert not message.tensor_content or dtype not in predict._PACKED
    back = tf.make_ndarray(message)
    np.testing.assert_array_equal(back, array, strict=True)


def test_strings_are_messages():
    array = np.array([[b"a", b"\xff\0"]], object)
    message = predict.to_message(array)
    assert list(message.string_val) == [b"a", b"\xff\0"]
    np.testing.assert_array_equal(tf.make_ndarray(message), array)


def strings(shape, *values):
    """Returns a message of strings that claims a shape."""
    message = tf.make_tensor_proto(list(values))
    del message.tensor_shape.dim[:]
    for size in shape:
        message.tensor_shape.dim.add(size=size)
    return message


def test_a_string_that_stands_for_many_counts_as_often():
    array = predict._to_array(strings([2, 2], b"a", b"bc"), "x", 64)
    assert array.tolist() == [[b"a", b"bc"], [b"bc", b"bc"]]
    # 1 + 3 * 10 and four pointers.
    message = strings([4], b"a", b"b" * 10)
    assert predict._to_array(message, "x", 63).shape == (4,)
    with pytest.raises(CallError, match="tensor too large: x"):
        predict._to_array(message, "x", 62)


def test_strings_are_no_numbers():
    for type_, name in (("DT_FLOAT", "float"), ("DT_INT64", "int64")):
        signature = meta_graph_pb2.SignatureDef()
        for alias in ("a", "b"):
            info = signature.inputs[alias]
            info.dtype = types_pb2.DataType.Value(type_)
        tensors = {"a": tf.make_tensor_proto(1.0), "b": strings([2**40], b"x")}
        sentence = rf"Expects arg\[1\] to be {name} but string is provided"
        with pytest.raises(CallError, match=sentence):
            predict.read_inputs(signature, tensors, 2**25)


def test_tensors_have_at_most_32_dimensions():
    for dimensions in (33, 64, 70):
        for message in (strings([1] * dimensions, b"x"), spoiled()):
            message.tensor_shape.ClearField("dim")
            for _ in range(dimensions):
                message.tensor_shape.dim.add(size=1)
            with pytest.raises(CallError, match=f"{dimensions} dimensions"):
                predict._to_array(message, "x", 2**25)
    # So many reach TensorFlow whole.
    array = predict._to_array(strings([1] * 32, b"x"), "x", 2**25)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        fed = tf.compat.v1.placeholder(tf.string)
        length = tf.strings.length(fed)
        assert session.run(length, {fed: array}).ravel() == [1]


def spoiled(**changes):
    """Returns a tensor message of `(2, 3)` floats with a change."""
    message = tf.make_tensor_proto(np.ones((2, 3), "float32"))
    match changes:
        case {"rows": rows}:
            message.tensor_shape.dim[0].size = rows
        case {"dtype": dtype}:
            message.dtype = dtype
        case {"unknown_rank": _}:
            message.tensor_shape.unknown_rank = True
        case {"content": content}:
            message.tensor_content = content
    return message


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rows": 2**40}, "tensor too large: x"),
        ({"rows": 2**62}, "tensor too large: x"),
        ({"rows": -1}, "tensor parsing error: x"),
        ({"rows": 3}, "tensor parsing error: x"),
        ({"dtype": 0}, "tensor parsing error: x"),
        ({"dtype": 4711}, "tensor parsing error: x"),
        ({"dtype": tf.resource.as_datatype_enum}, "tensor parsing error: x"),
        ({"dtype": tf.variant.as_datatype_enum}, "tensor parsing error: x"),
        ({"unknown_rank": True}, "tensor parsing error: x"),
        ({"content": b"12345"}, "tensor parsing error: x"),
    ],
)
def test_messages_that_are_no_tensors(changes, sentence):
    with pytest.raises(CallError) as caught:
        predict._to_array(spoiled(**changes), "x", 2**25)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert caught.value.message.startswith(sentence)
