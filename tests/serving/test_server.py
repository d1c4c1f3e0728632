"""`python -m serving.server`: how it starts, what it refuses, how it ends."""

import concurrent.futures
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving import server
from tests.serving.processes import UNLIMITED
from tests.serving.processes import exported_version
from tests.serving.processes import running
from tests.serving.tiny_versions import known_latents


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model_dir=nowhere"], "nowhere is not a folder: make it by python"),
        (["--rest_port=65536"], "--rest_port must be in [0, 65536), got 65536"),
        (["--max_batch_size=0"], "--max_batch_size must be at least 1, got 0"),
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
    flags = ("--model_name=other", "--max_batch_size=20000")
    with running(tmp_path / "faces", *flags) as started:
        # Above a second, so that it is at hand when the signal comes.
        request = started.request(latents=known_latents(20_000))
        request.model_spec.name = "other"
        with started.stubs(UNLIMITED) as (prediction, _):
            first = prediction.Predict(request)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                call = pool.submit(prediction.Predict, request)
                wait_until_at_hand(started)
                started.process.send_signal(signal.SIGTERM)
                assert not call.done()
                assert call.result(timeout=60) == first
        assert started.process.wait(timeout=60) == 143


def wait_until_at_hand(started):
    """Waits until the server's threads use the processor."""
    stat = Path(f"/proc/{started.process.pid}/stat")

    def ticks():
        return sum(map(int, stat.read_text().split()[13:15]))

    before = ticks()
    while ticks() < before + 3:
        pass
