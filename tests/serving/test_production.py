"""The set-up of TensorFlow Serving, as far as it can be held without Docker.

The files agree with each other, with the client and with the page that
describes them; the health check and the page's `curl` lines are run.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message_factory
from google.protobuf import text_format
from google.protobuf import wrappers_pb2
from PIL import Image
from tensorflow_serving.config import model_server_config_pb2

from serving.client import Client
from serving.client.__main__ import Arguments
from tests.serving import fakes
from transgan_tf.estimate import generator_parameters
from transgan_tf.presets import get_preset
from transgan_tf.presets import preset_names
from transgan_tf.sampling import images_at_once

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "serving" / "config"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PAGES = [ROOT / "README.md", ROOT / "docs" / "serving.md"]
SERVICE = yaml.safe_load((CONFIG / "compose.yaml").read_text())["services"][
    "transgan"
]


def stage(name):
    """Returns the instructions of one of the Dockerfile's stages, joined."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    (found,) = (s for s in stages if s.splitlines()[0].endswith(f" AS {name}"))
    return re.sub(r"\\\n\s*", "", f"FROM {found}")


def instruction(name, of="serving"):
    found = re.findall(rf"^{name} (.+)$", stage(of), re.MULTILINE)
    assert len(found) == 1, f"{name} stands there {len(found)} times"
    return found[0]


def flags():
    """Returns the server's flags in the image, by name."""
    words = json.loads(instruction("ENTRYPOINT"))
    assert words[0] == "tensorflow_model_server"
    return dict(word.removeprefix("--").split("=", 1) for word in words[1:])


# === Settings of the server ===


def make_message(pool, name, fields, needs="google/protobuf/wrappers.proto"):
    """Returns a message class of the fields `(number, name, type)`."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", syntax="proto3", dependency=[needs]
    )
    message = file.message_type.add(name=name)
    for number, field, kind in fields:
        added = message.field.add(name=field, number=number)
        added.label = added.LABEL_OPTIONAL
        if isinstance(kind, str):
            added.type, added.type_name = added.TYPE_MESSAGE, kind
        else:
            added.type = kind
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.fixture
def pool():
    """A pool with what the published packages lack: two of the settings."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    return pool


def parse(name, message):
    return text_format.Parse((CONFIG / name).read_text(), message)


def test_the_model_is_the_clients_and_lies_below_the_mount():
    config = parse("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == Arguments().model
    assert model.model_platform == "tensorflow"
    (volume,) = SERVICE["volumes"]
    assert model.base_path == f"{volume['target']}/{model.name}"
    assert model.model_version_policy.latest.num_versions == 1
    environment = instruction("ENV").split()
    assert environment == [f"MODEL_NAME={model.name}", "REST_PORT=8501"]


def test_batching_takes_what_the_client_sends(pool):
    number = ".google.protobuf.Int64Value"
    names = (
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
    )
    fields = [(i, name, number) for i, name in enumerate(names, start=1)]
    batching = parse(
        "batching.config", make_message(pool, "BatchingParameters", fields)()
    )
    assert all(batching.HasField(name) for name in names)
    assert batching.max_batch_size.value >= Arguments().batch_size
    # Milliseconds: a request that is alone should not notice.
    assert 0 < batching.batch_timeout_micros.value <= 10_000
    assert batching.max_enqueued_batches.value >= 1
    cpus = float(SERVICE["deploy"]["resources"]["limits"]["cpus"])
    assert 1 <= batching.num_batch_threads.value <= cpus


def test_monitoring_is_where_prometheus_is_told(pool):
    kind = descriptor_pb2.FieldDescriptorProto
    fields = [(1, "enable", kind.TYPE_BOOL), (2, "path", kind.TYPE_STRING)]
    make_message(pool, "PrometheusConfig", fields)
    fields = [(1, "prometheus_config", ".PrometheusConfig")]
    needs = "PrometheusConfig.proto"
    message = make_message(pool, "MonitoringConfig", fields, needs)
    monitoring = parse("monitoring.config", message())
    assert monitoring.prometheus_config.enable
    path = monitoring.prometheus_config.path
    assert path.startswith("/")
    assert f"http://localhost:8501{path}" in PAGES[1].read_text()


# === Image and compose file ===


def test_the_server_is_not_older_than_what_exports():
    image = instruction("FROM")
    pinned = re.fullmatch(
        r"tensorflow/serving:(\d+)\.(\d+)\.(\d+) AS serving", image
    )
    setup = (ROOT / "setup.py").read_text()
    exporter = re.search(r'"tensorflow==(\d+)\.(\d+)\.(\d+)"', setup)
    numbers = [tuple(map(int, m.groups())) for m in (pinned, exporter)]
    assert numbers[0] >= numbers[1]


def test_ports_agree():
    client = Arguments().address
    assert client == f"http://localhost:{flags()['rest_api_port']}"
    assert Client().model == Arguments().model
    ports = flags()["port"], flags()["rest_api_port"]
    assert instruction("EXPOSE").split() == list(ports)
    # Reachable from this machine alone.
    expected = [f"127.0.0.1:{port}:{port}" for port in ports]
    assert SERVICE["ports"] == expected


def test_each_file_that_the_server_reads_is_in_the_image():
    source, target = instruction("COPY").split()
    assert (ROOT / source).samefile(CONFIG)
    named = [value for value in flags().values() if value.startswith("/")]
    named.append(json.loads(health_command())[-1])
    assert len(named) == 4
    for path in named:
        assert (CONFIG / Path(path).relative_to(target)).is_file()
    assert flags()["enable_batching"] == "true"


def health_command():
    return re.search(r"CMD (\[.+\])", instruction("HEALTHCHECK"))[1]


def test_what_compose_builds_is_there():
    build = SERVICE["build"]
    assert (CONFIG / build["context"]).samefile(ROOT)
    assert stage(build["target"])
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "!serving" in ignored
    (volume,) = SERVICE["volumes"]
    assert volume["read_only"] is True
    default = re.fullmatch(r"\$\{MODELS:-(.+)\}", volume["source"])[1]
    assert Path(os.path.normpath(CONFIG / default)) == ROOT / "models"


def test_the_server_is_no_root_and_hears_signals():
    assert instruction("USER") == "1000:1000"
    assert SERVICE["cap_drop"] == ["ALL"]
    assert SERVICE["init"] is True and SERVICE["read_only"] is True


def test_the_train_stage_is_the_last_and_trains():
    assert DOCKERFILE.rindex(" AS train") > DOCKERFILE.rindex(" AS serving")
    words = json.loads(instruction("ENTRYPOINT", of="train"))
    assert words == ["python", "-m", "transgan_tf.train"]


# === Health ===


def check_health(port, model=fakes.NAME):
    variables = {"MODEL_NAME": model, "REST_PORT": str(port)}
    return subprocess.run(
        ["bash", CONFIG / "healthcheck.sh"],
        env={"PATH": os.environ["PATH"]} | variables,
        stderr=subprocess.DEVNULL,
        timeout=30,
    ).returncode


def test_health_is_an_available_version(monkeypatch):
    with fakes.rest(name="transgan") as fake:
        port = fake.address.rpartition(":")[-1]
        assert check_health(port, "transgan") == 0
        assert check_health(port, "cats") == 1
        for state in ("LOADING", "END"):
            monkeypatch.setitem(fakes.VERSIONS, 3, state)
            assert check_health(port, "transgan") == 1
    assert check_health(port, "transgan") == 1


def test_a_server_that_does_not_answer_is_not_healthy():
    with fakes.rest(name="transgan") as fake:
        fake.faults += ["silent"]
        port = fake.address.rpartition(":")[-1]
        assert check_health(port, "transgan") == 1


# === What the pages say ===


def curl_lines():
    for page in PAGES:
        blocks = re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL)
        for block in blocks:
            joined = re.sub(r"\\\n\s*", "", block)
            for line in joined.splitlines():
                if line.startswith("curl") and ":predict" in line:
                    yield pytest.param(line, id=page.name)


def test_both_pages_have_a_curl_line():
    names = {param.id.partition("-")[0] for param in curl_lines()}
    assert names == {page.name for page in PAGES}


@pytest.mark.parametrize("line", list(curl_lines()))
def test_curl_gives_a_png(line, tmp_path):
    with fakes.rest(name="transgan") as fake:
        assert "http://localhost:8501" in line
        line = line.replace("http://localhost:8501", fake.address)
        command = ["bash", "-o", "pipefail", "-c", line]
        subprocess.run(command, cwd=tmp_path, check=True)
    with Image.open(tmp_path / "seed7.png") as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(image, fakes.pixels(7, 1)[..., 0])


def test_presets_that_bear_fewer_images_are_named():
    text = (CONFIG / "batching.config").read_text()
    (most,) = re.findall(r"max_batch_size { value: (\d+) }", text)
    sentence = re.search("Memory bears fewer.*?:", text, re.DOTALL)[0]
    named = set(re.findall(r"\w+_\w+|stl10", sentence))
    counts = {
        name: images_at_once(get_preset(name).config.generator)
        for name in preset_names()
    }
    assert named == {n for n, count in counts.items() if count < int(most)}
    assert {counts[name] for name in named} == {
        int(number) for number in re.findall(r"\((\d+)\)", sentence)
    }


def row(name):
    config = get_preset(name).config.generator
    weights = round(generator_parameters(config) * 4 / 2**20)
    side = config.image_size
    return (
        f"| `{name}` | {side} px | {weights} MiB | {images_at_once(config)} |"
    )


@pytest.mark.parametrize("name", preset_names())
def test_resources_are_as_the_page_says(name):
    assert row(name) in PAGES[1].read_text().splitlines()
