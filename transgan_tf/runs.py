"""A run's folder: its configuration, its log, and what may change."""

import fcntl
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

from transgan_tf.checked import differences
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import load_config
from transgan_tf.checkpoints import step_name
from transgan_tf.configs import Config

_LOG = logging.getLogger("transgan_tf")

_LOG_FILE, _UNFINISHED = "log.txt", ".config.json.tmp"

# What may differ from one start of a run to the next.
CHANGEABLE = (
    "training.steps",
    "training.strategy",
    "training.rematerialize",
    "training.rematerialize_stages",
    "training.accumulation",
    "training.generator_accumulation",
    "training.max_bad_steps",
    "training.checkpoint_every_steps",
    "training.keep_checkpoints",
    "training.log_every_steps",
    "training.sample_every_steps",
    "evaluation.",
)

# The same for a run that was converted, until training has saved a step.
_CHANGEABLE_AT_FIRST = ("preset", "dataset", "training.", "evaluation.")


def open_run(run_dir, config: Config) -> None:
    """Makes a run's folder, or checks that it is of the same configuration.

    Starts its log, which this process holds until `close_log`.

    Raises:
        RunError: the folder is of another configuration, holds something else,
            cannot be written, or another process trains there.
    """
    run_dir = Path(run_dir)
    path = run_dir / "config.json"
    if path.is_file():
        newest = CheckpointFolder(run_dir / "checkpoints").latest()
        # Before the first checkpoint there is nothing that a change could harm.
        if newest is not None:
            config = _continued(run_dir, newest, config)
    elif run_dir.is_dir() and not _is_begun(run_dir):
        raise RunError(
            f"{run_dir} holds something that is not a run: choose another "
            "--run_dir"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        start_log(run_dir)
        temporary = run_dir / _UNFINISHED
        temporary.write_text(config.to_json())
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{run_dir} cannot be written ({error.strerror}): choose another "
            "--run_dir"
        ) from None


def _is_begun(run_dir):
    """Tells whether a folder has no more than a start that was cut off."""
    names = {path.name for path in run_dir.iterdir()}
    return names <= {_LOG_FILE, _UNFINISHED}


def _continued(run_dir, newest, config):
    """Returns the configuration of a run that goes on, with where it is from.

    Raises:
        RunError: the run was started with another configuration.
    """
    old = load_config(run_dir)
    config = replace(config, converted_from=old.converted_from)
    untrained = old.converted_from and newest.name == step_name(0)
    changeable = CHANGEABLE
    if untrained:
        changeable = _CHANGEABLE_AT_FIRST
    elif old.training.decay_start < 1:
        # The rates of the steps that were made depend on it.
        changeable = tuple(f for f in CHANGEABLE if f != "training.steps")
    changed = [
        line
        for line in differences(old, config)
        if not line.startswith(changeable)
    ]
    if changed:
        raise RunError(
            f"{run_dir} was started with another configuration "
            f"({'; '.join(changed)}): give the old values, or another --run_dir"
        )
    return config


def start_log(run_dir) -> None:
    """Sends the library's log lines to the screen and to `log.txt`.

    Raises:
        RunError: another process has this log open.
    """
    close_log()
    file = logging.FileHandler(os.path.join(run_dir, _LOG_FILE))
    try:
        # Two processes in one run would overwrite each other's checkpoints.
        fcntl.flock(file.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RunError(
            f"another process trains in {run_dir}: wait for it, or choose "
            "another --run_dir"
        ) from None
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    _LOG.setLevel(logging.INFO)
    _LOG.addHandler(screen)
    _LOG.addHandler(file)


def close_log() -> None:
    """Lets go of the run's log, and so of the run."""
    for handler in list(_LOG.handlers):
        _LOG.removeHandler(handler)
        handler.close()
