"""What TensorFlow Serving answers: the embedded server always, the real one
when its addresses and its model's folder are in the environment.
"""

import base64
import concurrent.futures
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import get_model_status_pb2
from tensorflow_serving.apis import inference_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import regression_pb2

from serving.versions import find_versions
from tests.serving.processes import PATIENCE
from tests.serving.processes import UNLIMITED
from tests.serving.processes import Server
from tests.serving.processes import exported_version
from tests.serving.processes import running
from tests.serving.tiny_versions import WIDTH
from tests.serving.tiny_versions import known_latents
from tests.serving.tiny_versions import write_warmup

REAL = ("TF_SERVING_REST", "TF_SERVING_GRPC", "TF_SERVING_MODEL_DIR")
SEEDS = {"seed": [3, 5], "truncation": [1.0, 0.5]}


@pytest.fixture(scope="module", params=["embedded", "tensorflow_model_server"])
def server(request, tmp_path_factory):
    """A server that serves the higher of two versions."""
    source = exported_version()
    if request.param == "embedded":
        folder = tmp_path_factory.mktemp("models") / "faces"
        for number in "12":
            shutil.copytree(source, folder / number)
        flags = ("--max_batch_size=4000", "--version_labels=stable=1")
        with running(folder, *flags) as server:
            yield server
        return
    places = [os.environ.get(name) for name in REAL]
    if not all(places):
        pytest.skip(f"{', '.join(REAL)} name no tensorflow_model_server")
    server = Server(places[0], places[1], Path(places[2]))
    try:
        for _ in "12":
            server.wait_for(server.publish(source), "AVAILABLE")
        yield server
    finally:
        server.remove_published()


@pytest.fixture
def stubs(server):
    with server.stubs() as stubs:
        yield stubs


def image_of(png):
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image)


# === REST ===


def test_status(server):
    status, body = server.http("GET", server.path)
    assert status == 200
    rows = json.loads(body)["model_version_status"]
    numbers = [int(row["version"]) for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    latest = rows[0]
    assert latest == {
        "version": str(numbers[0]),
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    one = f"{server.path}/versions/{numbers[0]}"
    assert json.loads(server.http("GET", one)[1]) == {
        "model_version_status": [latest]
    }
    # A label does not choose.
    by_label = server.http("GET", f"{server.path}/labels/none")[1]
    assert json.loads(by_label) == json.loads(body)


def test_metadata(server):
    status, body = server.http("GET", f"{server.path}/metadata")
    assert status == 200
    document = json.loads(body)
    latest = max(find_versions(server.folder))
    assert document["model_spec"] == {
        "name": server.name,
        "signature_name": "",
        "version": str(latest),
    }
    signatures = document["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == {
        "serving_default",
        "sample",
        "interpolate",
        "__saved_model_init_op",
    }
    latents = signatures["serving_default"]["inputs"]["latents"]
    assert latents["dtype"] == "DT_FLOAT"
    assert latents["tensor_shape"] == {
        "dim": [{"size": "-1", "name": ""}, {"size": str(WIDTH), "name": ""}],
        "unknown_rank": False,
    }
    method = signatures["sample"]["method_name"]
    assert method == "tensorflow/serving/predict"
    same = server.http("GET", f"{server.path}/versions/{latest}/metadata")[1]
    assert json.loads(same) == document


def test_latents_by_row_and_by_column_are_the_same_images(server):
    latents = known_latents(3).tolist()
    rows = server.predict_json({"instances": latents})[1]["predictions"]
    named = [{"latents": row} for row in latents]
    answers = [
        server.predict_json({"instances": named})[1]["predictions"],
        server.predict_json({"inputs": latents})[1]["outputs"],
        server.predict_json({"inputs": {"latents": latents}})[1]["outputs"],
    ]
    assert np.shape(rows) == (3, 12, 12, 3)
    assert np.ptp(rows) > 0.1 and np.abs(rows).max() <= 1.0
    for answer in answers:
        np.testing.assert_array_equal(answer, rows)


def test_seeds_give_pngs_in_base64(server):
    columns = {"signature_name": "sample", "inputs": SEEDS}
    outputs = server.predict_json(columns)[1]["outputs"]
    rows = [
        {"seed": seed, "truncation": truncation}
        for seed, truncation in zip(*SEEDS.values(), strict=True)
    ]
    document = {"signature_name": "sample", "instances": rows}
    assert server.predict_json(document) == (200, {"predictions": outputs})
    for output in outputs:
        assert list(output) == ["b64"]
        assert image_of(base64.b64decode(output["b64"])).shape == (12, 12, 3)
    assert outputs[0] != outputs[1]


def test_all_inputs_of_interpolation_are_needed(server):
    row = {"start": 1, "stop": 2, "position": 0.25, "truncation": 1.0}
    document = {"signature_name": "interpolate", "instances": [row]}
    status, reply = server.predict_json(document)
    assert status == 200
    assert len(reply["predictions"]) == 1
    del row["position"]
    status, reply = server.predict_json(document)
    assert status == 400
    keys = "keys must be equal to: position,start,stop,truncation"
    assert keys in reply["error"]


def test_no_rows(server):
    document = {"signature_name": "sample"}
    document["inputs"] = {"seed": [], "truncation": []}
    assert server.predict_json(document) == (200, {"outputs": []})


def test_paths_are_case_insensitive_but_names_are_not(server):
    document = {"inputs": known_latents(1).tolist()}
    path = f"/V1/Models/{server.name}:PREDICT"
    assert server.post(path, document)[0] == 200
    shouted = f"/v1/models/{server.name.upper()}:predict"
    assert server.post(shouted, document)[0] == 404
    quoted = "".join(f"%{ord(letter):02x}" for letter in server.name)
    assert server.http("GET", f"/v1/models/{quoted}?a=b")[0] == 200


def test_versions_have_paths(server):
    latest = max(find_versions(server.folder))
    document = {"inputs": known_latents(1).tolist()}
    path = f"{server.path}/versions/{latest}:predict"
    assert server.post(path, document)[0] == 200
    status, reply = server.post(f"{server.path}/versions/98:predict", document)
    assert status == 404
    assert f"Specific({server.name}, 98)" in reply["error"]


def test_labels_have_paths(server):
    document = {"inputs": known_latents(1).tolist()}
    status, reply = server.post(f"{server.path}/labels/x:predict", document)
    assert status == 400
    assert "Unrecognized servable version label: x" in reply["error"]
    if server.process is None:
        return
    path = f"{server.path}/labels/stable"
    assert server.post(f"{path}:predict", document)[0] == 200
    metadata = json.loads(server.http("GET", f"{path}/metadata")[1])
    assert metadata["model_spec"]["version"] == "1"


def test_bodies_may_be_compressed_and_followed_by_garbage(server):
    body = json.dumps({"instances": known_latents(2).tolist()}).encode()
    path = f"{server.path}:predict"
    plain = server.http("POST", path, body + b" garbage }")
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    packed = server.http("POST", path, gzip.compress(body), headers)
    assert plain == packed
    assert plain[0] == 200


def test_numbers_that_are_not_finite_reach_the_model(server):
    body = b'{"instances": [[NaN, 0, 0, 0, Infinity]]}'
    status, body = server.http("POST", f"{server.path}:predict", body)
    assert status == 400
    assert b"latents must be finite" in body


MALFORMED = "Malformed request: {verb} {path}"
PATHS = [
    ("GET", "/v1/models", "Missing model name in request."),
    ("GET", "/v1/models/{name}:predict", MALFORMED),
    ("POST", "/v1/models/{name}/metadata", MALFORMED),
    ("POST", "/v1/models/{name}:guess", MALFORMED),
    ("GET", "/v1/models/{name}/version/1", MALFORMED),
    ("GET", "/v1/models/{name}/versions/HELLO", MALFORMED),
    ("POST", "/v1/models/{name}/versions/1/labels/x:predict", MALFORMED),
    ("PUT", "/v1/models/{name}", MALFORMED),
    ("DELETE", "/v1/models/{name}", MALFORMED),
    ("GET", "/v1/models/{name}/versions/" + "9" * 30, "Failed to convert"),
]


@pytest.mark.parametrize(("verb", "path", "message"), PATHS)
def test_paths_that_do_not_exist(server, verb, path, message):
    path = path.format(name=server.name)
    status, body = server.http(verb, path, b"" if verb == "POST" else None)
    assert status == 400
    document = json.loads(body)
    assert list(document) == ["error"]
    assert message.format(verb=verb, path=path) in document["error"]


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/x", "/index.html"])
def test_paths_outside_are_html(server, path):
    status, body = server.http("GET", path)
    assert status == 404
    assert b"<html" in body.lower()


def test_options(server):
    origin = {"Origin": "https://example.org"}
    assert server.http("OPTIONS", server.path, headers=origin)[0] == 200
    assert server.http("OPTIONS", server.path) == (400, b"")


UNKNOWN = [
    ("GET", "/v1/models/nobody", "any versions of model nobody"),
    ("GET", "{path}/versions/97", "Could not find version 97 of model"),
    ("GET", "/v1/models/nobody/metadata", "for request: Latest(nobody)"),
    ("POST", "/v1/models/nobody:predict", "for request: Latest(nobody)"),
]


@pytest.mark.parametrize(("verb", "path", "message"), UNKNOWN)
def test_models_and_versions_that_do_not_exist(server, verb, path, message):
    body = b'{"instances": [[1]]}' if verb == "POST" else None
    status, body = server.http(verb, path.format(path=server.path), body)
    assert status == 404
    assert message in json.loads(body)["error"]


BODIES = [
    ("", "JSON Parse error: The document is empty"),
    ("{", "JSON Parse error: "),
    ("[1]", "Is not object"),
    ("{}", "Missing 'inputs' or 'instances' key"),
    ('{"instances": [1], "inputs": [1]}', "only one of 'inputs' or"),
    ('{"instances": []}', "No values in 'instances' array"),
    ('{"instances": [[1,2,3,4,"5"]]}', "is not of expected type: float"),
    ('{"instances": [[1,2],[3]]}', "Failed to process element: 1"),
    ('{"instances": [[1,2]]}', "latents must be 5 numbers wide"),
    ('{"inputs": [1,2]}', "is not compatible with expected shape"),
    ('{"inputs": {"noise": [[1]]}}', "Missing named input: latents"),
    ('{"signature_name": 1}', "'signature_name' key must be a string"),
    (
        '{"signature_name": "x", "inputs": 1}',
        'Serving signature name: "x" not found in signature def',
    ),
    (
        '{"signature_name": "sample", "inputs": '
        '{"seed": [1.0], "truncation": [1]}}',
        "is not of expected type: int64",
    ),
    (
        '{"signature_name": "sample", "inputs": '
        '{"seed": [1], "truncation": [2]}}',
        "truncation",
    ),
]


@pytest.mark.parametrize(("body", "message"), BODIES)
def test_bodies_that_cannot_be_answered(server, body, message):
    status, reply = server.http("POST", f"{server.path}:predict", body)
    assert status == 400
    document = json.loads(reply)
    assert list(document) == ["error"]
    assert message in document["error"]


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_a_generator_neither_classifies_nor_regresses(server, method):
    for document in ({"examples": [{"x": 1}]}, {"instances": [1]}):
        assert server.post(f"{server.path}:{method}", document)[0] == 400


# === gRPC ===


def status_of(call, request, **options):
    """Returns the code's name and the message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    return caught.value.code().name, caught.value.details()


def test_grpc_and_rest_agree(server, stubs):
    latents = known_latents(3)
    response = stubs[0].Predict(server.request(latents=latents))
    latest = max(find_versions(server.folder))
    assert response.model_spec.name == server.name
    assert response.model_spec.signature_name == "serving_default"
    assert response.model_spec.version.value == latest
    images = response.outputs["images"]
    # Values in fields, not in `tensor_content`.
    assert len(images.float_val) == 3 * 12 * 12 * 3
    rows = server.predict_json({"instances": latents.tolist()})[1]
    np.testing.assert_allclose(
        tf.make_ndarray(images), rows["predictions"], atol=1e-6
    )
    inputs = {key: np.array(value) for key, value in SEEDS.items()}
    inputs["truncation"] = inputs["truncation"].astype("float32")
    request = server.request("sample", **inputs)
    pngs = stubs[0].Predict(request).outputs["png_bytes"].string_val
    document = {"signature_name": "sample", "inputs": SEEDS}
    outputs = server.predict_json(document)[1]["outputs"]
    assert [base64.b64decode(row["b64"]) for row in outputs] == list(pngs)


def test_tensors_may_come_in_fields_or_as_bytes(server, stubs):
    latents = known_latents(2)
    request = server.request(latents=latents)
    assert request.inputs["latents"].tensor_content
    expected = stubs[0].Predict(request).outputs["images"]
    fields = request.inputs["latents"]
    fields.ClearField("tensor_content")
    fields.float_val.extend(latents.ravel().tolist())
    assert stubs[0].Predict(request).outputs["images"] == expected
    # The last value is repeated.
    fields.ClearField("float_val")
    fields.float_val.append(0.5)
    images = tf.make_ndarray(stubs[0].Predict(request).outputs["images"])
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)


def changed(server, **changes):
    """Returns a good request with a change."""
    request = server.request(latents=known_latents(2))
    tensor = request.inputs["latents"]
    match changes:
        case {"spec": None}:
            request.ClearField("model_spec")
        case {"tensor": data}:
            tensor.tensor_content = data
        case {"output_filter": aliases}:
            request.output_filter.extend(aliases)
        case {"version": number}:
            request.model_spec.version.value = number
        case {"inputs": inputs}:
            return server.request(**inputs)
        case _:
            (field, value) = changes.popitem()
            setattr(request.model_spec, field, value)
    return request


ZEROS = np.zeros((2, WIDTH), "float32")
REQUESTS = [
    ({"spec": None}, "INVALID_ARGUMENT", "Missing ModelSpec"),
    ({"name": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ({"name": "nobody"}, "NOT_FOUND", "for request: Latest(nobody)"),
    ({"version": 97}, "NOT_FOUND", ", 97)"),
    ({"version_label": "x"}, "INVALID_ARGUMENT", "version label: x"),
    (
        {"signature_name": "x"},
        "FAILED_PRECONDITION",
        'Serving signature key "x" not found.',
    ),
    ({"tensor": b"abc"}, "INVALID_ARGUMENT", "tensor parsing error: latents"),
    (
        {"output_filter": ["x"]},
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: x",
    ),
    (
        {"output_filter": ["images", "images"]},
        "INVALID_ARGUMENT",
        "duplicate output tensor alias: images",
    ),
    (
        {"inputs": {}},
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({latents})",
    ),
    (
        {"inputs": {"latents": ZEROS, "noise": ZEROS}},
        "INVALID_ARGUMENT",
        "Sent extra: {noise}. Missing but required: {}.",
    ),
    (
        {"inputs": {"noise": ZEROS}},
        "INVALID_ARGUMENT",
        "Signature input alias: latents(feed name: ",
    ),
    (
        {"inputs": {"latents": ZEROS.astype("float64")}},
        "INVALID_ARGUMENT",
        "to be float but double is provided",
    ),
    (
        {"inputs": {"latents": ZEROS[:, 1:]}},
        "INVALID_ARGUMENT",
        "latents must be 5 numbers wide",
    ),
    (
        {"inputs": {"latents": ZEROS[0]}},
        "INVALID_ARGUMENT",
        "is not compatible with expected shape",
    ),
    (
        {"signature_name": "x" * 3000},
        "FAILED_PRECONDITION",
        "xxx...TRUNCATED",
    ),
]


@pytest.mark.parametrize(("changes", "code", "message"), REQUESTS)
def test_requests_that_cannot_be_answered(
    server, stubs, changes, code, message
):
    request = changed(server, **dict(changes))
    name, details = status_of(stubs[0].Predict, request)
    assert name == code
    assert message in details
    assert len(details) <= 1024 + len("...TRUNCATED")


def test_the_initialisation_is_listed_but_not_called(server, stubs):
    key = "__saved_model_init_op"
    code, _ = status_of(stubs[0].Predict, server.request(key))
    assert code not in ("INTERNAL", "UNKNOWN", "UNAVAILABLE")
    for values in ({"inputs": {}}, {"instances": [1]}):
        status, reply = server.predict_json({"signature_name": key} | values)
        assert status == 400
        assert "Failed to get input map for signature" in reply["error"]


def test_outputs_can_be_chosen(server, stubs):
    request = server.request(latents=ZEROS)
    request.output_filter.append("images")
    assert list(stubs[0].Predict(request).outputs) == ["images"]


def test_metadata_over_grpc(server, stubs):
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = server.name
    call = stubs[0].GetModelMetadata
    assert status_of(call, request) == (
        "INVALID_ARGUMENT",
        "GetModelMetadataRequest must specify at least one metadata_field",
    )
    request.metadata_field.append("signature_def")
    response = call(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    outputs = signatures.signature_def["sample"].outputs
    assert outputs["png_bytes"].dtype == tf.string.as_datatype_enum
    request.metadata_field.append("weights")
    code, message = status_of(call, request)
    assert code == "INVALID_ARGUMENT"
    assert "Metadata field weights is not supported" in message
    request.metadata_field.pop()
    request.model_spec.name = "nobody"
    assert status_of(call, request)[0] == "NOT_FOUND"


def test_status_over_grpc(server, stubs):
    request = get_model_status_pb2.GetModelStatusRequest()
    call = stubs[1].GetModelStatus
    assert status_of(call, request) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    request.model_spec.name = "nobody"
    code, message = status_of(call, request)
    assert code == "NOT_FOUND"
    assert message == "Could not find any versions of model nobody"
    request.model_spec.name = server.name
    request.model_spec.version.value = 97
    code, message = status_of(call, request)
    assert code == "NOT_FOUND"
    assert message == f"Could not find version 97 of model {server.name}"


def test_a_generator_does_not_classify_over_grpc(server, stubs):
    spec = server.request().model_spec
    classify = classification_pb2.ClassificationRequest(model_spec=spec)
    regress = regression_pb2.RegressionRequest(model_spec=spec)
    both = inference_pb2.MultiInferenceRequest()
    both.tasks.add(model_spec=spec, method_name="tensorflow/serving/classify")
    calls = (stubs[0].Classify, stubs[0].Regress, stubs[0].MultiInference)
    for call, request in zip(calls, (classify, regress, both), strict=True):
        assert status_of(call, request)[0] == "INVALID_ARGUMENT"
    empty = classification_pb2.ClassificationRequest()
    assert status_of(stubs[0].Classify, empty)[1] == "Missing ModelSpec"


def test_large_replies(server, stubs):
    request = server.request(latents=known_latents(2600))
    code, message = status_of(stubs[0].Predict, request)
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in message
    with server.stubs(UNLIMITED) as (prediction, _):
        images = prediction.Predict(request).outputs["images"]
    # Above the 4 MiB that a client takes by default.
    assert images.ByteSize() > 2**22
    assert tf.make_ndarray(images).shape == (2600, 12, 12, 3)


# === Many clients, changing versions ===


def test_fifty_clients_each_get_their_own_images(server):
    latents = known_latents(50)
    with server.stubs() as (prediction, _):
        response = prediction.Predict(server.request(latents=latents))
    expected = tf.make_ndarray(response.outputs["images"])
    start = threading.Barrier(50, timeout=60)

    def ask(number):
        row = latents[number : number + 1]
        start.wait()
        if number % 2:
            document = {"instances": row.tolist()}
            return server.predict_json(document)[1]["predictions"][0]
        with server.stubs() as (prediction, _):
            response = prediction.Predict(server.request(latents=row))
        return tf.make_ndarray(response.outputs["images"])[0]

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        images = list(pool.map(ask, range(50)))
    np.testing.assert_allclose(images, expected, atol=1e-4)


@contextlib.contextmanager
def load(server):
    """Keeps asking in threads; yields a list of the versions that answered."""
    stop, versions = threading.Event(), []
    body = json.dumps({"instances": known_latents(1).tolist()})

    def over_grpc():
        request = server.request(latents=known_latents(2))
        with server.stubs() as (prediction, _):
            while not stop.is_set():
                spec = prediction.Predict(request).model_spec
                versions.append(spec.version.value)

    def over_rest():
        while not stop.is_set():
            status, reply = server.http("POST", f"{server.path}:predict", body)
            assert status == 200, reply

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        workers = (over_grpc, over_grpc, over_rest, over_rest)
        futures = [pool.submit(worker) for worker in workers]
        try:
            yield versions
        finally:
            stop.set()
            for future in futures:
                future.result(timeout=60)


def settled(versions):
    """Returns the last answer, which both clients asked for from now on."""
    noted = len(versions)
    deadline = time.monotonic() + PATIENCE
    while len(versions) < noted + 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    return versions[-1]


def test_switch_and_rollback_fail_no_request(server):
    old = max(find_versions(server.folder))
    with load(server) as versions:
        assert settled(versions) == old
        new = server.publish(server.folder / str(old))
        server.wait_for(new, "AVAILABLE")
        server.wait_for(old, "END")
        assert settled(versions) == new
        shutil.rmtree(server.folder / str(new))
        server.wait_for(new, "END")
        assert settled(versions) == old
    assert set(versions) == {old, new}


@pytest.fixture
def staged(server, tmp_path):
    """A copy of the version that is served, to be spoiled and published."""
    latest = max(find_versions(server.folder))
    return Path(shutil.copytree(server.folder / str(latest), tmp_path / "new"))


def refused(server, staged, message):
    """Publishes a version that is refused; the old one goes on serving."""
    old = max(find_versions(server.folder))
    new = server.publish(staged)
    try:
        row = server.wait_for(new, "END", "LOADING")
        if server.process is not None:
            row = server.wait_for(new, "END")
            assert row.status.error_code != 0
            assert re.search(message, row.status.error_message)
        with server.stubs() as (prediction, _):
            request = server.request(latents=ZEROS)
            spec = prediction.Predict(request).model_spec
            assert spec.version.value == old
            request.model_spec.version.value = new
            assert status_of(prediction.Predict, request)[0] == "NOT_FOUND"
    finally:
        shutil.rmtree(server.folder / str(new))


def test_a_damaged_version_is_not_served(server, staged):
    graph = staged / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:5000])
    refused(server, staged, "saved_model.pb")


def test_a_version_without_weights_is_not_served(server, staged):
    shutil.rmtree(staged / "variables")
    refused(server, staged, "variables")


def test_a_version_that_fails_its_warm_up_is_not_served(server, staged):
    write_warmup(staged, latents=ZEROS[:, 1:])
    refused(server, staged, "latents must be 5 numbers wide")


def test_a_version_that_passes_its_warm_up_is_served(server, staged):
    old = max(find_versions(server.folder))
    write_warmup(staged, latents=ZEROS)
    new = server.publish(staged)
    server.wait_for(new, "AVAILABLE")
    shutil.rmtree(server.folder / str(new))
    server.wait_for(new, "END")
    server.wait_for(old, "AVAILABLE")


def test_other_names_are_no_versions(server, staged):
    before = set(server.states())
    for name in ("tmp-90", "91.tmp", ".92", "v93"):
        shutil.copytree(staged, server.folder / name)
    # One look at the folder later than a new version is.
    new = server.publish(staged)
    server.wait_for(new, "AVAILABLE")
    assert set(server.states()) == {*before, new}
    for name in ("tmp-90", "91.tmp", ".92", "v93", str(new)):
        shutil.rmtree(server.folder / name)
    server.wait_for(new, "END")


def test_an_empty_folder_unloads_and_a_missing_one_does_not(server, tmp_path):
    latest = max(find_versions(server.folder))
    request = server.request(latents=ZEROS)
    aside = server.folder.with_name("aside")
    with server.stubs() as (prediction, _):
        server.folder.rename(aside)
        # Above two looks at the folder, of the real server too.
        end = time.monotonic() + (0.5 if server.process else 3)
        try:
            while time.monotonic() < end:
                assert prediction.Predict(request).outputs
        finally:
            aside.rename(server.folder)
        kept = sorted(map(str, find_versions(server.folder)))
        for name in kept:
            (server.folder / name).rename(tmp_path / name)
        try:
            server.wait_for(latest, "END")
            assert status_of(prediction.Predict, request)[0] == "NOT_FOUND"
        finally:
            for name in kept:
                (tmp_path / name).rename(server.folder / name)
        server.wait_for(latest, "AVAILABLE")
        assert prediction.Predict(request).outputs


def test_metrics_count_requests(server):
    path = "/monitoring/prometheus/metrics"
    if server.http("GET", path)[0] == 404:
        # The real server has them when its command line says so.
        assert server.process is None
        return
    pattern = (
        rf':tensorflow:serving:request_count{{model_name="{server.name}",'
        r'status="OK"} (\d+)'
    )

    def count():
        text = server.http("GET", path)[1].decode()
        return int(re.search(pattern, text)[1]), text

    before, _ = count()
    with server.stubs() as (prediction, _):
        prediction.Predict(server.request(latents=ZEROS))
    server.predict_json({"inputs": ZEROS.tolist()})
    after, text = count()
    assert after == before + 2
    for labels in ('API="Predict",entrypoint="GRPC"', 'entrypoint="REST"'):
        line = rf":request_latency_count{{.*{labels}.*}} [1-9]"
        assert re.search(line, text)
    assert ":tensorflow:serving:runtime_latency_bucket{" in text
    for line in text.splitlines():
        assert re.fullmatch(r"# TYPE \S+ \w+|[\w:]+\{.*\} [\d.e+]+", line)


def test_garbage_is_no_protobuf(server):
    with grpc.insecure_channel(server.grpc) as channel:
        method = "/tensorflow.serving.PredictionService/Predict"
        call = channel.unary_unary(method)
        assert status_of(call, b"\xff\xff")[0] in ("INTERNAL", "UNKNOWN")
        nothing = predict_pb2.PredictRequest().SerializeToString()
        assert status_of(call, nothing)[0] == "INVALID_ARGUMENT"
        unknown = channel.unary_unary("/tensorflow.serving.Nothing/Predict")
        assert status_of(unknown, nothing)[0] == "UNIMPLEMENTED"
