"""Beam's local engine: its defaults, and that it loses nothing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.options.pipeline_options import HadoopFileSystemOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.worker import data_plane

from pipeline import files
from pipeline.engine import make_pipeline
from pipeline.options import beam_options
from pipeline.preprocess import Arguments
from tests.photos import crop
from tests.photos import encoded
from tests.photos import photographs
from tests.photos import write_folder
from tests.prepared import contents
from tests.prepared import prepare

MODES = ("in_memory", "multi_threading", "multi_processing")


@pytest.mark.parametrize(
    ("flags", "cores", "workers", "mode"),
    [
        ([], 4, 4, "multi_processing"),
        ([], 1, 1, "in_memory"),
        (["--direct_num_workers=3"], 1, 3, "multi_processing"),
        (["--direct_num_workers=1"], 4, 1, "in_memory"),
        (["--direct_num_workers=0"], 4, 0, "multi_processing"),
        (["--direct_num_workers", "0"], 1, 0, "in_memory"),
        (["--direct_running_mode=multi_threading"], 4, 4, "multi_threading"),
        (["--runner=DirectRunner"], 4, 4, "multi_processing"),
        (["--runner=FlinkRunner"], 4, 1, "in_memory"),
    ],
)
def test_a_process_for_each_core(flags, cores, workers, mode, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    options = beam_options(flags, Arguments).view_as(DirectOptions)
    assert options.direct_num_workers == workers
    assert options.direct_running_mode == mode


def test_no_thread_empties_buffers_that_another_fills(tmp_path, monkeypatch):
    """Beam 2.77 loses what is written meanwhile."""
    started = []

    def start(stream):
        started.append(stream)

    name = "TimeBasedBufferingClosableOutputStream"
    stream_type = getattr(data_plane, name)
    monkeypatch.setattr(stream_type, "_schedule_periodic_flush", start)
    source = write_folder(tmp_path / "photos", photographs(3))
    prepare(tmp_path, source=source, direct_running_mode="multi_threading")
    assert not started
    # Beam's own value starts them, so that this test would notice.
    monkeypatch.setattr(worker_handlers, "DATA_BUFFER_TIME_LIMIT_MS", 1000)
    flags = ["--direct_running_mode=multi_threading"]
    with beam.Pipeline("FnApiRunner", argv=flags) as pipeline:
        pipeline | beam.Create([1]) | beam.Map(str)
    assert started


class TellOption(beam.DoFn):
    def process(self, path):
        options = FileSystems._pipeline_options
        host = options.view_as(HadoopFileSystemOptions).hdfs_host
        files.write(path, host.encode())


def test_processes_know_the_options(tmp_path):
    flags = ["--hdfs_host=storage", "--direct_num_workers=2"]
    pipeline = make_pipeline(beam_options(flags, Arguments))
    path = str(tmp_path / "told")
    pipeline | beam.Create([path]) | beam.ParDo(TellOption())
    pipeline.run().wait_until_finish()
    assert files.read(path) == b"storage"


def launch(tmp_path, count=300):
    source = write_folder(tmp_path / "photos", photographs(count))
    words = ["--dataset=cats", f"--source={source}", "--image_size=16"]
    words += [f"--output_dir={tmp_path}", "--direct_num_workers=2"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.preprocess", *words],
        cwd=Path(__file__).resolve().parents[1],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_processes_do_their_work_in_silence(tmp_path):
    with launch(tmp_path) as job:
        told = job.stderr.read()
    assert job.returncode == 0
    lines = [line for line in told.splitlines() if line]
    assert lines
    assert all("img/s]" in line for line in lines), told


def deaf_workers(group):
    """Returns how many processes of a group ignore the terminal's interrupt."""
    deaf = 0
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            ignored = re.search(r"SigIgn:\s*(\w+)", path.read_text())[1]
            is_deaf = int(ignored, 16) >> (signal.SIGINT - 1) & 1
            own = os.getpgid(int(path.parent.name)) == group
            deaf += own and is_deaf
    return deaf


@pytest.mark.parametrize(
    ("number", "send", "status"),
    # A terminal sends its interrupt to the whole group.
    [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 143)],
)
def test_a_signal_ends_all_processes(number, send, status, tmp_path):
    # Workers are only just starting, which is when Beam loses sight of them.
    with launch(tmp_path, count=3000) as job:
        while deaf_workers(job.pid) < 2:
            assert job.poll() is None
            time.sleep(0.01)
        send(job.pid, number)
        told = job.stderr.read()
    assert job.returncode == status
    assert told.strip().endswith("interrupted") == (number == signal.SIGINT)
    assert "Traceback" not in told
    with pytest.raises(ProcessLookupError):
        os.killpg(job.pid, 0)


@pytest.mark.slow
def test_sixty_thousand_images_are_all_there_in_every_mode(tmp_path):
    count, source = 60_000, tmp_path / "a.zip"
    images = [encoded(crop(number, 8, 8)) for number in range(50)]
    with zipfile.ZipFile(source, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number:06d}.png", images[number % 50])
    made = []
    for mode in MODES:
        flags = {"image_size": 8, "direct_running_mode": mode}
        if mode != "in_memory":
            flags["direct_num_workers"] = 2
        folder = prepare(tmp_path / mode, source=source, **flags)
        made.append(contents(folder))
        statistics = json.loads(made[-1]["statistics.json"])
        assert statistics["images"]["train"] == count
    assert made[0] == made[1] == made[2]
