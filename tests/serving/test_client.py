"""The client against servers that answer, fail, or are not there."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import urllib3
from PIL import Image

from serving import client as module
from serving.client import Client
from serving.client.__main__ import main
from serving.client.errors import ServingError
from tests.serving import fakes
from transgan_tf.checked import ConfigError
from transgan_tf.checked import UserError

SERVERS = {"rest": fakes.rest, "rpc": fakes.rpc}


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY", 0.001)


@pytest.fixture(params=SERVERS)
def server(request):
    with SERVERS[request.param]() as fake:
        yield fake


@pytest.fixture
def rest():
    with fakes.rest() as fake:
        yield fake


def connect(server, **options):
    return Client(server.address, **{"model": fakes.NAME} | options)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# === What a server that answers gives ===


def test_seeds_give_images(server):
    # Seeds above 2**53 would be changed by a way through floats.
    seeds = [3, 0, 2**63 - 1]
    with connect(server) as client:
        images = client.sample(seeds, truncation=0.7)
    expected = [fakes.pixels(s, np.float32(0.7)) for s in seeds]
    assert images.dtype == np.uint8
    assert images.shape == (3, fakes.HEIGHT, fakes.WIDTH, 1)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("start", SERVERS.values(), ids=SERVERS)
def test_colours_stay_in_their_channels(start):
    with start(channels=3) as fake, connect(fake) as client:
        images = client.sample([4])
    np.testing.assert_array_equal(images[0], fakes.pixels(4, 1, 3))


def test_latents_give_float_images(server):
    z = np.linspace(-1.5, 1.5, 12).reshape(2, 6)
    with connect(server) as client:
        images = client.latents(z)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, fakes.draw(z))


def test_interpolation_includes_both_ends(server):
    with connect(server) as client:
        images = client.interpolate(5, 9, frames=3, truncation=0.5)
        ends = client.sample([5, 9], truncation=0.5)
    np.testing.assert_array_equal(images[[0, 2]], ends)
    np.testing.assert_array_equal(images[1], fakes.between(5, 9, 0.5, 0.5))


def test_a_version_may_be_named(server):
    with connect(server, version=3) as client:
        client.sample([0])
    with connect(server) as client:
        client.sample([0])
    assert server.asked == [("sample", 3, 1), ("sample", None, 1)]


def test_requests_have_at_most_a_batch_of_rows(server):
    with connect(server, batch_size=3) as client:
        images = client.sample(np.arange(7))
    assert [rows for _, _, rows in server.asked] == [3, 3, 1]
    np.testing.assert_array_equal(images[6], fakes.pixels(6, 1))


def test_replies_may_be_larger_than_usual_for_grpc(rest):
    z = np.zeros((6, 7))
    z[:, 0] = np.arange(6) / 8
    with fakes.rpc() as fake, connect(fake) as client:
        images = client.latents(z)
    assert images.nbytes > 4 * 2**20
    np.testing.assert_array_equal(images[:, 255, 255, 2], z[:, 0])
    rest.faults += ["large"]
    with connect(rest) as client:
        image = client.sample([8])[0]
    np.testing.assert_array_equal(image, fakes.pixels(8, 1))


def test_status_lists_versions_newest_first(server):
    with connect(server) as client:
        assert client.status() == [
            {"version": 3, "state": "AVAILABLE", "error": ""},
            {"version": 2, "state": "END", "error": ""},
        ]


def test_proxies_of_the_environment_are_passed_by(server, monkeypatch):
    nothing = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "grpc_proxy", "all_proxy"):
        monkeypatch.setenv(name, nothing)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with connect(server, retries=0) as client:
        assert len(client.sample([0])) == 1


# === What fails and is tried again ===


def test_a_busy_server_is_asked_again(server):
    server.faults += ["busy", "busy"]
    with connect(server) as client:
        images = client.sample([8])
    np.testing.assert_array_equal(images[0], fakes.pixels(8, 1))
    assert [what for what, _, _ in server.asked] == ["busy", "busy", "sample"]


def test_tries_are_bounded(server):
    server.faults += ["busy"] * 9
    with connect(server, retries=2) as client:
        with pytest.raises(ServingError, match="queue is full") as caught:
            client.sample([8])
    assert caught.value.code == "UNAVAILABLE"
    assert len(server.asked) == 3


def test_delays_double_and_vary(server, monkeypatch):
    delays = []
    monkeypatch.setattr(module, "FIRST_DELAY", 0.1)
    monkeypatch.setattr(module.time, "sleep", delays.append)
    server.faults += ["busy"] * 9
    with connect(server, retries=4) as client:
        with pytest.raises(ServingError):
            client.status()
    assert len(delays) == 4
    for delay, most in zip(delays, (0.1, 0.2, 0.4, 0.8), strict=True):
        assert most / 2 <= delay <= most


def test_no_try_begins_after_the_time(server, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY", 60)
    server.faults += ["busy"]
    with connect(server, timeout=5) as client:
        with pytest.raises(ServingError, match="queue is full"):
            client.sample([8])
    assert len(server.asked) == 1


@pytest.mark.parametrize("fault", ["gone", "cut", "page_503"])
def test_a_lost_connection_is_made_again(rest, fault):
    rest.faults += [fault]
    with connect(rest) as client:
        assert len(client.sample([8])) == 1
    assert [what for what, _, _ in rest.asked] == [fault, "sample"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_may_start_after_the_first_try(name, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY", 0.15)
    refused, started, done = (threading.Event() for _ in range(3))
    sleep = time.sleep

    def started_meanwhile(delay):
        refused.set()
        assert started.wait(10)
        sleep(delay)

    def serve():
        assert refused.wait(10)
        with SERVERS[name](port=port):
            started.set()
            assert done.wait(10)

    port = free_port()
    scheme = {"rest": "http", "rpc": "grpc"}[name]
    monkeypatch.setattr(module.time, "sleep", started_meanwhile)
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        address = f"{scheme}://127.0.0.1:{port}"
        with Client(address, fakes.NAME, timeout=20) as client:
            assert len(client.sample([0])) == 1
        done.set()
        serving.result()


# === What fails at once ===


def failure(client, *seeds):
    with pytest.raises(ServingError) as caught:
        client.sample(seeds or [8, 9])
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def test_an_error_is_told_in_the_servers_words(server):
    server.faults += ["wrong"]
    with connect(server) as client:
        error = failure(client)
    assert error.code == "INVALID_ARGUMENT"
    assert str(error) == f"{server.address}: {fakes.WRONG}"
    assert len(server.asked) == 1


def test_an_unknown_model_gets_a_hint(server):
    with connect(server, model="cats") as client:
        error = failure(client)
    assert error.code == "NOT_FOUND"
    assert "Latest(cats)" in str(error)
    assert "models.config" in str(error)


def test_an_unknown_version_gets_a_hint(server):
    with connect(server, version=7) as client:
        error = failure(client)
    assert error.code == "NOT_FOUND"
    assert f"Specific({fakes.NAME}, 7)" in str(error)
    assert "--status without --version" in str(error)


def test_a_silent_server_is_left_in_time(server):
    server.faults += ["silent"]
    begin = time.monotonic()
    with connect(server, timeout=0.3) as client:
        error = failure(client)
    assert 0.3 <= time.monotonic() - begin < 5
    assert error.code == "DEADLINE_EXCEEDED"
    assert "did not answer in time" in str(error)
    assert len(server.asked) == 1


def test_a_reply_without_end_is_left_in_time(rest):
    rest.faults += ["slow"]
    begin = time.monotonic()
    with connect(rest, timeout=0.3) as client:
        error = failure(client)
    assert time.monotonic() - begin < 5
    assert error.code == "DEADLINE_EXCEEDED"


def test_the_time_to_connect_counts(rest, monkeypatch):
    sockets = []
    create = urllib3.util.connection.create_connection

    def slow(*args, **options):
        time.sleep(0.2)
        sockets.append(create(*args, **options))
        return sockets[-1]

    monkeypatch.setattr(urllib3.util.connection, "create_connection", slow)
    with connect(rest, timeout=30) as client:
        client.sample([0])
        # What is left for the reply.
        assert sockets[0].gettimeout() <= 29.8


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server_tells_how_to_start_one(scheme):
    address = f"{scheme}://127.0.0.1:{free_port()}"
    with Client(address, retries=1) as client:
        error = failure(client)
    assert error.code == "UNAVAILABLE"
    assert f"no server answers at {address}" in str(error)
    assert "Connection refused" in str(error)
    assert "python -m serving.server" in str(error)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("page", "(status 200)"),
        ("page_404", "(status 404)"),
        ("redirected", "(status 302)"),
        ("list", "(status 200)"),
        ("ragged", "(a reply of another form)"),
        ("no_base64", "(a reply of another form)"),
        ("no_png", "something that is not images"),
        ("short", "something that is not images"),
    ],
)
def test_what_is_no_answer_is_refused(rest, fault, sentence):
    rest.faults += [fault]
    with connect(rest) as client:
        error = failure(client)
    assert error.code == "UNKNOWN"
    assert sentence in str(error)
    assert len(rest.asked) == 1


def raw_rpc(pool, reply):
    """Starts a server that gives the same bytes to every call."""
    server = grpc.server(pool)
    handler = grpc.unary_unary_rpc_method_handler(lambda *_: reply)

    class All(grpc.GenericRpcHandler):
        def service(self, _):
            return handler

    server.add_generic_rpc_handlers([All()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"grpc://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        # No message; no output; an output of no type.
        (b"\xff\xff\xff", "another form"),
        (b"", "another form"),
        (b"\x0a\x05\x0a\x01a\x12\x00", "another form"),
    ],
)
def test_what_is_no_message_is_refused(reply, sentence):
    with ThreadPoolExecutor(1) as pool:
        server, address = raw_rpc(pool, reply)
        with Client(address) as client:
            error = failure(client)
        server.stop(None).wait()
    assert error.code == "UNKNOWN"
    assert sentence in str(error)


def test_the_other_protocols_port_is_told(rest):
    with fakes.rpc() as rpc:
        for address in (
            rest.address.replace("http", "grpc"),
            rpc.address.replace("grpc", "http"),
        ):
            with Client(address, retries=0, timeout=10) as client:
                assert "gRPC at 8500" in str(failure(client))


def test_latents_that_give_no_images_are_told(rest):
    # A model of one number a row.
    rest.answer = lambda *_: ("images", np.zeros(2, "float32"))
    with connect(rest) as client:
        with pytest.raises(ServingError, match="not images"):
            client.latents(np.zeros((2, 6)))


@pytest.mark.parametrize(
    "address",
    ["localhost:8501", "ftp://a:1", "grpc://a", "http://", "http://a:b", ""],
)
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(ConfigError, match="--address must be http://host"):
        Client(address)


def test_nothing_is_not_asked_for(rest):
    with connect(rest) as client:
        with pytest.raises(UserError, match="no images to ask for"):
            client.sample([])


# === The command line ===


def run(server, *flags):
    return main(
        [f"--address={server.address}", f"--model={fakes.NAME}", *flags]
    )


def test_a_process_draws_a_grid_without_tensorflow(server, tmp_path):
    flags = [f"--address={server.address}", f"--model={fakes.NAME}"]
    flags += ["--seed=7", "--num_images=5", "--batch_size=2"]
    flags += ["--truncation=0.5", "--output=new/grid.png"]
    command = [sys.executable, "-X", "importtime", "-m", "serving.client"]
    done = subprocess.run(
        [*command, *flags],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "new/grid.png\n"
    assert "numpy" in done.stderr and "tensorflow" not in done.stderr
    with Image.open(tmp_path / "new/grid.png") as grid:
        tiles = np.asarray(grid)
    assert tiles.shape == (2 * fakes.HEIGHT, 3 * fakes.WIDTH)
    # The fifth image, of seed 11: the second of the second row.
    fifth = fakes.pixels(11, 0.5)[..., 0]
    np.testing.assert_array_equal(tiles[3:, 5:10], fifth)
    assert not tiles[3:, 10:].any()


def test_single_files_are_named_by_seed(server, tmp_path, capsys):
    folder = tmp_path / "images"
    flags = ["--seed=99", "--num_images=2", f"--output_dir={folder}"]
    assert run(server, *flags) == 0
    assert capsys.readouterr().out == f"2 images in {folder}\n"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["seed-000000099.png", "seed-000000100.png"]
    with Image.open(folder / names[1]) as image:
        np.testing.assert_array_equal(image, fakes.pixels(100, 1)[..., 0])


def test_latents_of_a_file_are_drawn(server, tmp_path):
    z = np.array([[-1, -0.5, 0, 0.25, 1, 2]])
    np.save(tmp_path / "z.npy", z)
    flags = [f"--latents={tmp_path / 'z.npy'}", f"--output_dir={tmp_path}"]
    assert run(server, *flags) == 0
    with Image.open(tmp_path / "latent-000000000.png") as image:
        pixels = np.asarray(image)
    # (z + 1) * 127.5, rounded half to even, clipped.
    np.testing.assert_array_equal(pixels, [[0, 64, 128], [159, 255, 255]])


@pytest.mark.parametrize(
    ("flags", "frames"), [(["--num_images=3"], 12), (["--stop=2"], 8)]
)
def test_walks_are_closed(server, tmp_path, flags, frames):
    path = tmp_path / "walk.gif"
    flags = [*flags, "--interpolate", "--frames=4", f"--output={path}"]
    assert run(server, *flags) == 0
    with Image.open(path) as walk:
        assert walk.n_frames == frames
        np.testing.assert_allclose(
            np.asarray(walk.convert("L")), fakes.pixels(0, 1)[..., 0], atol=1
        )


def test_status_tells_states_and_whether_one_is_available(
    server, capsys, monkeypatch
):
    assert run(server, "--status") == 0
    assert capsys.readouterr().out == "version 3 AVAILABLE\nversion 2 END\n"
    monkeypatch.setitem(fakes.VERSIONS, 3, "LOADING")
    assert run(server, "--status") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--num_images=0"], "--num_images must be at least 1, got 0"),
        (["--batch_size=0"], "--batch_size must be at least 1, got 0"),
        (["--retries=-1"], "--retries must be at least 0, got -1"),
        (["--version=-1"], "--version must be at least 0, got -1"),
        (["--timeout=0"], "--timeout must be above 0, got 0.0"),
        (["--truncation=1.5"], "--truncation must be in (0, 1], got 1.5"),
        (["--seed=-1"], "--seed must be in [0, "),
        (["--output=grid.tiff"], "--output must name a .png"),
        (["--interpolate"], "--output must name a .gif or .mp4"),
        (["--stop=3"], "--stop goes with --interpolate alone, got 3"),
        (
            ["--latents=z.npy", "--truncation=0.5"],
            "--truncation does not go with --latents, got 0.5",
        ),
        (
            ["--latents=z.npy", "--interpolate", "--output=a.gif"],
            "--interpolate does not go with --latents",
        ),
        (["--latents=z.npy"], "No such file or directory: z.npy"),
        (["--latents=text.npy"], "text.npy is not a .npy file of floats"),
        (["--latents=deep.npy"], "must be (N, Z), got (2, 3, 4)"),
        (["--address=here"], "--address must be http://host:port"),
        (["--model=cats"], "Servable not found for request: Latest(cats)"),
    ],
)
def test_mistakes_get_one_sentence(
    rest, flags, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("text.npy").write_text("hello")
    np.save("deep.npy", np.zeros((2, 3, 4)))
    assert run(rest, *flags) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert len(error.splitlines()) == 1
    assert not rest.asked
