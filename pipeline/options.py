"""Beam's own flags: told from typing mistakes, with local defaults."""

import dataclasses
import os

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.engine import LOCAL
from pipeline.engine import PROCESSES
from transgan_tf.checked import ConfigError
from transgan_tf.checked import nearest

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
    elif known.labels:
        # Whoever types it here means our own flag, without its last letter.
        raise UnknownFlag("--label is Dataflow's: say --labels or --no_labels")
    _refuse(unknown, arguments_type)
    if is_local:
        flags = [*_local_defaults(runner, flags), *flags]
    return PipelineOptions(flags)


def _refuse(unknown, arguments_type):
    own = [f"--{f.name}" for f in dataclasses.fields(arguments_type)]
    for flag in unknown:
        raise UnknownFlag(
            f"unknown flag {flag}, neither ours nor Beam's"
            f"{nearest(flag.partition('=')[0], own)}"
        )


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
    mode = PROCESSES if workers > 1 else "in_memory"
    return [*defaults, f"--direct_running_mode={mode}"]
