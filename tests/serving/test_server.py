"""`python -m serving.server`: how it starts, what it refuses, how it ends."""

import asyncio
import concurrent.futures
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from serving import server
from serving.models import Model
from serving.runs import Runs
from tests.serving.processes import UNLIMITED
from tests.serving.processes import exported_version
from tests.serving.processes import running
from tests.serving.tiny_versions import known_latents


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model_dir=nowhere"], "nowhere is not a folder: make it by python"),
        (["--rest_port=65536"], "--rest_port must be in [0, 65536), got 65536"),
        (
            ["--max_request_mib=0"],
            "--max_request_mib must be at least 1, got 0",
        ),
        (
            ["--max_batch_size=-1"],
            "--max_batch_size must be at least 0, got -1",
        ),
        (["--max_queue=-1"], "--max_queue must be at least 0, got -1"),
        (["--poll_seconds=0"], "--poll_seconds must be above 0, got 0.0"),
        (
            ["--version_labels=stable"],
            "--version_labels must be like stable=3,canary=4, got 'stable'",
        ),
    ],
)
def test_mistakes_get_one_sentence(
    flags, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert server.main(["--model_dir=models", *flags]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_a_version_is_no_model(tmp_path, capsys):
    assert server.main([f"--model_dir={exported_version()}"]) == 1
    parent = exported_version().parent
    assert f"holds it, --model_dir={parent}" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--rest_port", "--grpc_port"])
def test_a_port_that_is_taken_gets_one_sentence(flag, tmp_path, capfd):
    ports = {"--rest_port": 0, "--grpc_port": 0}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports[flag] = taken.getsockname()[1]
        flags = [f"{name}={port}" for name, port in ports.items()]
        assert server.main([f"--model_dir={tmp_path}", *flags]) == 1
    error = capfd.readouterr().err.strip().splitlines()
    assert f"cannot listen on 127.0.0.1:{ports[flag]}" in error[-1]
    assert f"another {flag} may be free" in error[-1]


def test_help_shows_commands(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "serving.server", "--help"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "python -m serving.server --model_dir=models/transgan" in done.stdout


def test_a_stopped_server_finishes_what_it_has_begun(tmp_path):
    shutil.copytree(exported_version(), tmp_path / "faces" / "1")
    flags = ("--model_name=other", "--max_batch_size=40000", "--max_runs=1")
    document = json.dumps({"instances": known_latents(1000).tolist()})
    with running(tmp_path / "faces", *flags) as started:
        # Above a second, so that it is at hand when the signal comes.
        request = started.request(latents=known_latents(40_000))
        request.model_spec.name = "other"
        with (
            started.stubs(UNLIMITED) as (prediction, _),
            contextlib.closing(HTTPConnection(started.rest)) as connection,
        ):
            first = prediction.Predict(request)
            connection.request("POST", "/v1/models/other:predict", document)
            reply = connection.getresponse().read()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                call = pool.submit(prediction.Predict, request)
                wait_until_at_hand(started)
                # Waits for the first one's thread.
                connection.request("POST", "/v1/models/other:predict", document)
                assert started.http("GET", "/v1/models/other")[0] == 200
                started.process.send_signal(signal.SIGTERM)
                assert not call.done()
                assert call.result(timeout=60) == first
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, reply)
        assert started.process.wait(timeout=60) == 143


def test_a_run_does_not_outlast_the_grace(tmp_path, monkeypatch):
    held, statuses = threading.Event(), []

    def leave(status):
        statuses.append(status)
        held.set()

    async def stop():
        runs = Runs(1, 0)
        call = asyncio.create_task(runs.call(lambda _: held.wait(60), None))
        await asyncio.sleep(0)
        closing = asyncio.create_task(
            server._close(runs, Model("faces", tmp_path), 0.2, 143)
        )
        await asyncio.sleep(0.01)
        # The loop, and so a second signal, goes on meanwhile.
        assert not closing.done() and not call.done()
        await closing
        return await call

    monkeypatch.setattr("os._exit", leave)
    assert asyncio.run(stop())
    assert statuses == [143]


def wait_until_at_hand(started):
    """Waits until the server's threads use the processor."""
    stat = Path(f"/proc/{started.process.pid}/stat")

    def ticks():
        return sum(map(int, stat.read_text().split()[13:15]))

    before = ticks()
    while ticks() < before + 3:
        pass
