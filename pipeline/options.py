"""Beam's own flags: told from typing mistakes, with local defaults."""

import dataclasses
import os

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from transgan_tf.checked import ConfigError
from transgan_tf.checked import nearest

# The engine in this process. Beam's default tries to download another first.
LOCAL = "FnApiRunner"
_LOCAL_RUNNERS = ("fnapi", "direct", "bundlebaseddirect", "switchingdirect")


class UnknownFlag(ConfigError):
    """A flag that nobody knows; its text is one sentence."""


def beam_options(flags: list[str], arguments_type: type) -> PipelineOptions:
    """Makes the pipeline's options of the flags that are not ours.

    Without `--runner` the job runs here, in as many processes as there are
    cores. Flags that Beam does not know go to other runners, which may have
    flags of their own.

    Args:
        flags: words of the command line.
        arguments_type: dataclass of our own flags, to suggest one.

    Raises:
        UnknownFlag: nobody knows a flag.
        ConfigError: the number of workers is negative.
    """
    known, unknown = _parse(flags)
    if known.direct_num_workers < 0:
        raise ConfigError(
            "--direct_num_workers must be at least 1, or 0 for as many as "
            f"there are cores, got {known.direct_num_workers}"
        )
    runner = known.runner or LOCAL
    is_local = runner.lower().removesuffix("runner") in _LOCAL_RUNNERS
    if not is_local:
        # Beam would take these for flags of which they are the beginning.
        _, left = _parse(flags, allow_abbrev=True)
        unknown = [word for word in unknown if word not in left]
    own = [f"--{f.name}" for f in dataclasses.fields(arguments_type)]
    for flag in unknown:
        raise UnknownFlag(
            f"unknown flag {flag}, neither ours nor Beam's"
            f"{nearest(flag.partition('=')[0], own)}"
        )
    if is_local:
        _never_flush_by_time()
        flags = [*_local_defaults(runner, flags), *flags]
    return PipelineOptions(flags)


def _parse(flags, allow_abbrev=False):
    """Returns what Beam understands of the flags, and the other words."""
    parsers = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parsers[0].allow_abbrev = allow_abbrev
    return parsers[0].parse_known_args(flags)


def _local_defaults(runner, flags):
    """Returns flags to put before the user's, of which the last count."""
    defaults = [f"--runner={runner}", f"--direct_num_workers={os.cpu_count()}"]
    known, _ = _parse([*defaults, *flags])
    workers = known.direct_num_workers or os.cpu_count()
    mode = "multi_processing" if workers > 1 else "in_memory"
    return [*defaults, f"--direct_running_mode={mode}"]


def _never_flush_by_time():
    """Keeps Beam's local engine from losing elements.

    Where workers have a gRPC connection it empties the buffers of what they
    send each other from a second thread, once a second and without a lock: what
    is written between its reading and its clearing is lost. Seen with Beam
    2.77, of 60,000 elements in threads of one process. Zero means that buffers
    are emptied by their size alone, by the thread that writes.
    """
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
