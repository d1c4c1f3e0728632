"""A run's folder: its configuration, its log, and what may change."""

import logging
import os
import sys
from pathlib import Path

from transgan_tf.checked import differences
from transgan_tf.checkpoints import LATEST
from transgan_tf.checkpoints import RunError
from transgan_tf.checkpoints import load_config
from transgan_tf.configs import Config

# What may differ from one start of a run to the next.
CHANGEABLE = (
    "training.steps",
    "training.strategy",
    "training.checkpoint_every_steps",
    "training.keep_checkpoints",
    "training.log_every_steps",
    "training.sample_every_steps",
    "evaluation.",
)


def open_run(run_dir, config: Config) -> None:
    """Makes a run's folder, or checks that it is of the same configuration.

    Raises:
        RunError: the folder is of another configuration, holds something else,
            or cannot be written.
    """
    run_dir = Path(run_dir)
    path = run_dir / "config.json"
    if path.is_file():
        # Before the first checkpoint there is nothing that a change could harm.
        if (run_dir / "checkpoints" / LATEST).is_file():
            _check_same(run_dir, load_config(run_dir), config)
    elif run_dir.is_dir() and any(run_dir.iterdir()):
        raise RunError(
            f"{run_dir} holds something that is not a run: choose another "
            "--run_dir"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        temporary = run_dir / ".config.json.tmp"
        temporary.write_text(config.to_json())
        temporary.replace(path)
    except OSError as error:
        raise RunError(
            f"{run_dir} cannot be written ({error.strerror}): choose another "
            "--run_dir"
        ) from None


def _check_same(run_dir, old, new):
    changed = [
        line
        for line in differences(old, new)
        if not line.startswith(CHANGEABLE)
    ]
    if changed:
        raise RunError(
            f"{run_dir} was started with another configuration "
            f"({'; '.join(changed)}): give the old values, or another --run_dir"
        )


def start_log(run_dir) -> None:
    """Sends the library's log lines to the screen and to `log.txt`."""
    log = logging.getLogger("transgan_tf")
    log.setLevel(logging.INFO)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    screen = logging.StreamHandler(sys.stdout)
    screen.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(screen)
    file = logging.FileHandler(os.path.join(run_dir, "log.txt"))
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(file)
