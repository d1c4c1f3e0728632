"""Beam's engines: the local one as the job needs it, others as they are."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import (
    ExtendedProvisionInfo,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.transforms.environments import SubprocessSDKEnvironment

# The engine in this process. Beam's default tries to download another first.
LOCAL = "FnApiRunner"
PROCESSES = "multi_processing"
_WORKER = "pipeline.worker"


def make_pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Returns an empty pipeline for the runner that the options name."""
    _never_flush_by_time()
    direct = options.view_as(DirectOptions)
    name = options.view_as(StandardOptions).runner.lower()
    is_local = name.removesuffix("runner") == "fnapi"
    if not is_local or direct.direct_running_mode != PROCESSES:
        return beam.Pipeline(options=options)
    runner = _runner_of_processes(options)
    # Otherwise Beam puts its own command in the place of ours.
    direct.direct_running_mode = "in_memory"
    return beam.Pipeline(runner, options)


def _never_flush_by_time():
    """Keeps the local engine from losing elements.

    Where workers have a gRPC connection it empties the buffers of what they
    send each other from a second thread, once a second and without a lock: what
    is written between its reading and its clearing is lost. Seen with Beam
    2.77, of 60,000 elements in threads of one process. Zero means that buffers
    are emptied by their size alone, by the thread that writes.
    """
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0


def _runner_of_processes(options):
    """Returns the local engine with silent workers that know the options.

    Beam's own workers do not get them, and remote file systems need some.
    """
    # In the place of the shell, which would stay when its worker is gone.
    command = f"exec {shlex.quote(sys.executable)} -m {_WORKER}"
    known = options.get_all_options(drop_default=True)
    provision = beam_provision_api_pb2.ProvisionInfo(
        pipeline_options=JobServiceHandle.encode_pipeline_options(known)
    )
    return FnApiRunner(
        SubprocessSDKEnvironment.from_command_string(command),
        provision_info=ExtendedProvisionInfo(provision),
    )


@contextlib.contextmanager
def workers_end_when_interrupted():
    """Lets Ctrl-C or SIGTERM end the worker processes before Beam hears of it.

    Beam tells its workers to stop and waits for them; those that are just
    starting do not hear it, and it would wait for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def end(number, frame):
        _end_workers()
        if callable(before[number]):
            before[number](number, frame)
        sys.exit(128 + number)

    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_workers():
    """Ends this process's workers, where the system tells of them (Linux)."""
    for children in Path("/proc/self/task").glob("*/children"):
        for number in children.read_text().split():
            # It may end by itself meanwhile.
            with contextlib.suppress(OSError):
                command = Path("/proc", number, "cmdline").read_bytes()
                if _WORKER.encode() in command:
                    os.kill(int(number), signal.SIGTERM)
