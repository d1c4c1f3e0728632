"""Updates that are not finite, and what a run tells of its time."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.killed_run import resumable_config
from tests.pair import MINIMAL
from tests.tiny import smallest_config
from transgan_tf import fitting
from transgan_tf import training
from transgan_tf.callbacks import Curves
from transgan_tf.callbacks import TrainingStopped
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import state
from transgan_tf.gan import make_gan
from transgan_tf.stores import ArrayStore
from transgan_tf.stream import step_batches
from transgan_tf.timing import Arrivals
from transgan_tf.timing import StepClock

pytestmark = pytest.mark.usefixtures("freed_graphs")

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 12, 12, 3), "uint8")
BATCH = np.tanh(IMAGES[:8] / 64 - 2).astype("float32")


@pytest.fixture
def train(monkeypatch, tmp_path):
    """Trains 6 steps in `tmp_path`; in those numbered an image is NaN."""

    def train(bad_steps, **changes):
        def batches(images, settings, start_step, *workers):
            def poison(step, batch):
                # Steps are counted from 1.
                bad = tf.reduce_any(
                    step + 1 == tf.constant(bad_steps, tf.int64)
                )
                return tf.where(bad, np.nan, 1.0) * batch

            made = step_batches(images, settings, start_step, *workers)
            return made.enumerate(start_step).map(poison)

        monkeypatch.setattr(fitting, "step_batches", batches)
        periods = {"log_every_steps": 2, "checkpoint_every_steps": 2}
        config = resumable_config(6, **periods | changes)
        return training.train(config, IMAGES, tmp_path, "noise")

    return train


def read_metrics(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def values_of(gan):
    return {name: v.numpy() for name, v in state(gan).items()}


def test_an_update_that_is_not_finite_is_skipped_and_counted():
    gan = make_gan(smallest_config())
    step = tf.function(gan.train_step, autograph=False)
    step(tf.constant(BATCH))
    before = values_of(gan)
    poisoned = BATCH.copy()
    # Row 3 is of the second of two discriminator updates.
    poisoned[3] = np.nan
    step(tf.constant(poisoned))
    after = values_of(gan)
    assert after["skipped_updates"] == 1
    assert after["bad_row"] == 1
    for name, value in after.items():
        assert np.isfinite(value).all(), name
        if name.startswith("trackers"):
            # A step that was not whole counts in no mean.
            np.testing.assert_array_equal(value, before[name], name)
    # The other updates were made: one of D's two, and G's.
    iterations = [gan.discriminator_optimizer, gan.generator_optimizer]
    assert [int(o.iterations) for o in iterations] == [3, 2]
    step(tf.constant(BATCH))
    assert int(gan.skipped_updates) == 1
    assert int(gan.bad_row) == 0
    assert int(gan.bad_step) == 0


def test_a_skipped_update_leaves_weights_and_moments_as_they_were():
    gan = make_gan(smallest_config(n_critic=1))
    gan.train_step(tf.constant(BATCH[:4]))
    before = values_of(gan)
    gan.train_step(tf.constant(np.full_like(BATCH[:4], np.nan)))
    after = values_of(gan)
    parts = ("discriminator/", "discriminator_optimizer/")
    kept = [name for name in after if name.startswith(parts)]
    assert kept
    for name in kept:
        assert after[name].tobytes() == before[name].tobytes(), name


def test_a_loss_that_is_not_finite_is_enough():
    gan = make_gan(smallest_config(loss="hinge", n_critic=1))
    # Hinge's slope at NaN is 0: the losses tell, the gradients need not.
    gan.discriminator.head.bias.assign([np.nan])
    gan.train_step(tf.constant(BATCH[:4]))
    # The discriminator's and the generator's.
    assert int(gan.skipped_updates) == 2


MIRRORED = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import numpy as np
from tests.test_guards import BATCH, values_of
from tests.tiny import smallest_config
from transgan_tf.gan import make_gan
from transgan_tf.training import make_strategy
strategy = make_strategy("mirrored")
with strategy.scope():
    gan = make_gan(smallest_config(n_critic=1, batch_size=8))
poisoned = BATCH.copy()
poisoned[7] = np.nan  # Of the second replica.
before = values_of(gan)
gan.fit(tf.data.Dataset.from_tensors(poisoned), verbose=0)
after = values_of(gan)
assert after["skipped_updates"] == 1, after["skipped_updates"]
for name, value in after.items():
    if name.startswith("discriminator"):
        assert value.tobytes() == before[name].tobytes(), name
gan.fit(tf.data.Dataset.from_tensors(BATCH), verbose=0)
assert int(gan.skipped_updates.numpy()) == 1
assert int(gan.discriminator_optimizer.iterations.numpy()) == 1
"""


@pytest.mark.slow
def test_all_replicas_skip_what_is_not_finite_on_one():
    result = subprocess.run(
        [sys.executable, "-c", MIRRORED],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_run_goes_on_after_bad_steps_and_tells(train, tmp_path, capsys):
    assert train([2, 3, 4], max_bad_steps=4) == 0
    told = capsys.readouterr().out
    assert "step 2: 1 updates since" in told
    assert "step 4: 2 updates since" in told
    first, second, third = read_metrics(tmp_path)
    assert "generator_loss" in first
    # A window of skipped steps alone has no means.
    assert "generator_loss" not in second
    assert "generator_loss" in third
    skipped = [line["skipped_updates"] for line in (first, second, third)]
    assert skipped == [1, 3, 3]
    check_times(third, tmp_path)


def check_times(line, folder):
    """Asserts that a line and TensorBoard tell what the time went into."""
    assert 0 <= line["seconds_data"] < line["seconds_step"]
    share = line["seconds_data"] / line["seconds_step"]
    assert line["data_wait_share"] == pytest.approx(share)
    images = 4 / line["seconds_step"]
    assert line["images_per_second"] == pytest.approx(images)
    # The checkpoint of step 4 lies before the line of step 6.
    assert line["seconds_checkpoint"] > 0
    tags = set()
    for path in (folder / "tensorboard").iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert {name for name in line if name not in ("step", "images")} <= tags


def test_too_many_bad_steps_in_a_row_stop_the_run(train, tmp_path):
    with pytest.raises(TrainingStopped) as error:
        # One alone, and then three.
        train([2, 4, 5, 6], max_bad_steps=3)
    assert "of 3 steps in a row, up to step 6, are not finite" in str(
        error.value
    )
    # The checkpoint of step 6 would be of a run that cannot go on.
    newest = CheckpointFolder(tmp_path / "checkpoints").latest()
    assert newest.name == "step-000000004"


def test_the_row_of_bad_steps_is_in_the_checkpoint(tmp_path):
    gan = make_gan(smallest_config())
    gan.bad_row.assign(2)
    CheckpointFolder(tmp_path).save(gan)
    gan.bad_row.assign(0)
    CheckpointFolder(tmp_path).restore(gan)
    assert int(gan.bad_row) == 2


# === Time ===


@pytest.fixture
def clock(monkeypatch):
    """A `StepClock`, and a function that sets its time."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return StepClock(Arrivals()), lambda second: now.__setitem__(0, second)


def test_waiting_is_what_passes_before_a_batch_arrives(clock):
    clock, set_time = clock
    # Begin, arrival and end; the first step compiles and does not count.
    for begin, arrival, end in [(0, 9, 50), (60, 59, 64), (70, 73, 78)]:
        set_time(begin)
        clock.begin()
        clock.arrivals.append(arrival)
        set_time(end)
        clock.end()
    assert clock.take(5) == {
        "images_per_second": 10 / 12,
        "seconds_step": 6.0,
        "seconds_data": 1.5,
        "data_wait_share": 0.25,
    }
    assert clock.take(5) == {}


def test_batches_note_when_they_are_taken():
    arrivals = Arrivals()
    batches = iter(arrivals.note(tf.data.Dataset.range(3)))
    before = time.monotonic()
    assert next(batches).numpy() == 0
    assert len(arrivals) == 1
    assert before <= arrivals[0] <= time.monotonic()
    assert next(batches).numpy() == 1
    assert len(arrivals) == 2


def test_starving_is_told_once_until_it_ends(tmp_path, caplog):
    curves = Curves(
        1,
        first_step=0,
        last_step=9,
        run_dir=tmp_path,
        writer=None,
        images_per_step=4,
        arrivals=Arrivals(),
        others={},
    )
    told, counts = [], []
    for share in (0.1, 0.6, 0.7, 0.2, 0.5):
        curves.clock.take = lambda images, share=share: {
            "data_wait_share": share
        }
        with caplog.at_level("INFO", "transgan_tf"):
            curves._times()
        told += [record.getMessage() for record in caplog.records]
        caplog.clear()
        counts.append(len(told))
    assert counts == [0, 1, 1, 1, 2]
    assert "waits for data for 60 % of the time" in told[0]
    assert "waits for data for 50 % of the time" in told[1]


class Slow(ArrayStore):
    """Images on a disk that takes its time."""

    def take(self, places):
        def read(places):
            time.sleep(1)
            return self.images[places]

        images = tf.numpy_function(read, (places,), tf.uint8)
        return tf.ensure_shape(images, (None, *self.images.shape[1:]))


@pytest.mark.slow
def test_a_store_that_starves_the_device_is_told_of(tmp_path):
    config = smallest_config(**MINIMAL | {"steps": 8, "log_every_steps": 4})
    assert training.train(config, Slow(IMAGES[:, :3, :3]), tmp_path, "n") == 0
    told = re.findall(
        r"step (\d): the device waits for data for (\d+) % of the time: a fas",
        (tmp_path / "log.txt").read_text(),
    )
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert set(lines) == {4, 8}
    # Told once, not at every line.
    ((step, percent),) = told
    share = lines[int(step)]["data_wait_share"]
    assert int(percent) == pytest.approx(100 * share, abs=0.5)
    # A step of networks as small as these takes much less than a second.
    assert lines[8]["data_wait_share"] > 0.5
    assert lines[8]["seconds_data"] > 0.5
