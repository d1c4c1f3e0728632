"""Trains a tiny run, and dies by SIGKILL where it is told to.

`python -m tests.killed_run FOLDER DATASET STEPS [POINT] [--features=FOLDER]`,
where POINT is the number of the call of `os.fsync` before which the process
kills itself; a checkpoint makes three: its arrays, its folder, and the file
`latest`, and one more where `best` is named. With features it trains by
everything that a run can have, and scores.
"""

import argparse
import dataclasses
import os
import signal
import sys

from tests.tiny import smallest_config
from transgan_tf import cli
from transgan_tf import training
from transgan_tf.configs import EvaluationConfig
from transgan_tf.data import load_dataset

# What has a state of its own, or a place in the order of the draws.
EVERYTHING = {
    "n_critic": 2,
    "accumulation": 2,
    "generator_accumulation": 2,
    "precision": "float16",
    "jit": True,
    # Of 8 images a step.
    "ema_images": 24,
}


def resumable_config(steps, features=None, **changes):
    """Rates that fall, a moving average that warms up, mirrored images."""
    recipe = {
        "steps": steps,
        "n_critic": 1,
        "decay_start": 0.25,
        "horizontal_flip": True,
        # Of 4 images a step: it warms up until step 6.
        "ema_images": 12,
        "checkpoint_every_steps": 2,
        "log_every_steps": 3,
        "sample_every_steps": 5,
    }
    if features is None:
        return smallest_config(**recipe | changes)
    config = smallest_config(**recipe | EVERYTHING | changes)
    scored = EvaluationConfig(
        features=str(features),
        num_images=20,
        metrics="fid,is",
        every_images=24,
        keep_best=True,
    )
    return dataclasses.replace(config, evaluation=scored)


def train(folder, dataset, steps, features=None):
    config = resumable_config(steps, features)
    images = load_dataset(dataset, "data", config)
    return training.train(config, images, folder, "images")


def kill_at(point):
    """Lets the process die before call number `point` of `os.fsync`."""
    fsync, calls = os.fsync, iter(range(1, point + 1))

    def deadly(file):
        if next(calls) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = deadly


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("dataset")
    parser.add_argument("steps", type=int)
    parser.add_argument("point", type=int, nargs="?")
    parser.add_argument("--features")
    given = parser.parse_args()
    if given.point:
        kill_at(given.point)
    what = (given.folder, given.dataset, given.steps, given.features)
    return cli.answer(lambda: train(*what))


if __name__ == "__main__":
    sys.exit(main())
