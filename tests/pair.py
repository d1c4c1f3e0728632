"""Processes that train one model together, each with a fault if a test likes.

The networks are as small as can be, since each process traces them anew.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.tiny import smallest_config
from transgan_tf import cli
from transgan_tf import fitting
from transgan_tf import training
from transgan_tf.configs import EvaluationConfig
from transgan_tf.gan import TransGAN
from transgan_tf.network_configs import Stage
from transgan_tf.stores import ArrayStore
from transgan_tf.stores import DataError
from transgan_tf.stream import step_batches

PROGRAM = "from tests import pair; pair.work()"
MINIMAL = {
    "generator": {"stages": (Stage(3, 12, 0),)},
    "discriminator": {"stages": (Stage(3, 10, 0),), "image_size": 3},
    "loss": "hinge",
    "n_critic": 1,
    "augmentation": "",
}
ENDLESS = {
    "minimal": True,
    "steps": 100_000,
    "checkpoint_every_steps": 10,
    "log_every_steps": 5,
    "sample_every_steps": 20,
}
# Sentences name a worker's address.
ADDRESS = r"\(localhost:\d+\)"


# === One process ===


def work():
    """Trains as `sys.argv` says; the main program of a test's processes."""
    folder, options = sys.argv[1], json.loads(sys.argv[2])
    sys.exit(cli.answer(lambda: run(folder, **options)))


def run(folder, minimal=False, images=21, size=None, fault=None, **options):
    """Trains on random images; returns the exit status.

    Args:
        folder: the run's.
        minimal: whether the networks are as small as can be.
        images: how many there are.
        size: their side, that of the networks if left out.
        fault: name and argument of one of `FAULTS`.
        **options: fields of the training configuration, and `evaluation`.
    """
    evaluation = EvaluationConfig(**options.pop("evaluation", {}))
    config = smallest_config(**(MINIMAL if minimal else {}) | options)
    config = dataclasses.replace(config, evaluation=evaluation)
    size = size or config.generator.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (images, size, size, 3))
    store = Failing(pixels.astype("uint8"))
    if fault:
        name, value = fault
        FAULTS[name](store, value)
    return training.train(config, store, folder, "noise")


class Failing(ArrayStore):
    """Images that can be read `times` times only, for ever if None."""

    times = None

    def take(self, places):
        def read(places):
            if self.times is not None:
                self.times -= 1
                if self.times < 0:
                    raise DataError("the file is damaged")
            return self.images[places]

        images = tf.numpy_function(read, (places,), tf.uint8)
        return tf.ensure_shape(images, (None, *self.images.shape[1:]))


def break_images(store, times):
    """Lets so many readings of images succeed."""
    store.times = times


def break_model(_, step):
    """Lets the model fail after so many steps."""
    train_step = TransGAN.train_step

    def broken(self, data):
        last = tf.constant(step, tf.int64)
        tf.debugging.assert_less(self.step.value, last, "the model is broken")
        return train_step(self, data)

    TransGAN.train_step = broken


def break_numbers(_, step):
    """Makes images NaN after so many steps."""

    def batches(store, settings, start_step, *workers):
        def poison(number, batch):
            return tf.where(number < step, 1.0, np.nan) * batch

        made = step_batches(store, settings, start_step, *workers)
        return made.enumerate(start_step).map(poison)

    fitting.step_batches = batches


def limit_files(_, size):
    """Lets no file grow beyond so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


FAULTS = {
    "images": break_images,
    "model": break_model,
    "numbers": break_numbers,
    "files": limit_files,
}


# === Several ===


class Process(subprocess.Popen):
    """A worker, and what it has said."""

    def __init__(self, folder, options, environment, group):
        self.folder = Path(folder)
        self.log = self.folder.with_suffix(".txt")
        with open(self.log, "w") as log:
            super().__init__(
                [sys.executable, "-c", PROGRAM, folder, json.dumps(options)],
                cwd=Path(__file__).parents[1],
                env=os.environ | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=group,
            )

    def said(self):
        return self.log.read_text()

    def ended(self, seconds=120):
        """Waits for its end; returns the exit status and its last line."""
        status = self.wait(seconds)
        return status, self.said().strip().splitlines()[-1]

    def latest(self):
        """Returns the step of its newest checkpoint, 0 before the first."""
        path = self.folder / "checkpoints" / "latest"
        text = path.read_text().strip() if path.is_file() else "-0"
        return int(text.rpartition("-")[2] or 0)

    def wait_for(self, condition, seconds=600):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)


@contextlib.contextmanager
def started(folder, *options):
    """Starts a worker for each dict of options; leaves none behind.

    Each is given a folder of its own: the chief's is the run's. Together they
    are a process group, as those that one terminal has started.
    """
    with contextlib.ExitStack() as open_sockets:
        sockets = [
            open_sockets.enter_context(socket.create_server(("localhost", 0)))
            for _ in options
        ]
        addresses = [f"localhost:{s.getsockname()[1]}" for s in sockets]
    processes = []
    try:
        for index, option in enumerate(options):
            task = {"type": "worker", "index": index}
            cluster = {"cluster": {"worker": addresses}, "task": task}
            processes.append(
                Process(
                    str(folder / f"run{index}"),
                    {"strategy": "multi_worker"} | option,
                    {"TF_CONFIG": json.dumps(cluster)},
                    processes[0].pid if processes else 0,
                )
            )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def interrupt_group(chief):
    """Does to a group of workers what Ctrl-C does in their terminal."""
    os.killpg(chief.pid, signal.SIGINT)
