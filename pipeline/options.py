"""Beam's own flags: told from typing mistakes, with local defaults."""

import dataclasses
import os

from apache_beam.options.pipeline_options import PipelineOptions

from transgan_tf.checked import ConfigError
from transgan_tf.checked import nearest

# The engine in this process. Beam's default tries to download another first.
LOCAL = "FnApiRunner"
_LOCAL_RUNNERS = ("fnapi", "direct", "bundlebaseddirect", "switchingdirect")


def beam_options(flags: list[str], arguments_type: type) -> PipelineOptions:
    """Makes the pipeline's options of the flags that are not ours.

    Without `--runner` the job runs here, in as many threads as there are
    cores. Flags that Beam does not know go to other runners, which may have
    flags of their own.

    Args:
        flags: words of the command line.
        arguments_type: dataclass of our own flags, to suggest one.

    Raises:
        ConfigError: nobody knows a flag.
    """
    known, unknown = _parse(flags)
    runner = known.runner or LOCAL
    if runner.lower().removesuffix("runner") in _LOCAL_RUNNERS:
        own = [f"--{f.name}" for f in dataclasses.fields(arguments_type)]
        for flag in unknown:
            raise ConfigError(
                f"unknown flag {flag}, neither ours nor Beam's"
                f"{nearest(flag.partition('=')[0], own)}"
            )
        flags = [*_local_defaults(runner), *flags]
    return PipelineOptions(flags)


def _parse(flags):
    """Returns what Beam understands of the flags, and the other words."""
    parsers = []
    PipelineOptions(flags).get_all_options(add_extra_args_fn=parsers.append)
    return parsers[0].parse_known_args(flags)


def _local_defaults(runner):
    return [
        f"--runner={runner}",
        f"--direct_num_workers={os.cpu_count()}",
        "--direct_running_mode=multi_threading",
    ]
