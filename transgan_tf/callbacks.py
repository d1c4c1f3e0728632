"""What happens beside the steps: curves, grids, checkpoints, the bar, stops."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from transgan_tf.checked import UserError
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.checkpoints import snapshot
from transgan_tf.cli import progress_bar
from transgan_tf.pictures import grid
from transgan_tf.pictures import write_png
from transgan_tf.sampling import generate
from transgan_tf.timing import STARVED
from transgan_tf.timing import Arrivals
from transgan_tf.timing import StepClock

GRID_SEEDS = np.arange(64)
METRICS_FILE = "metrics.jsonl"

_log = logging.getLogger(__name__)


class TrainingStopped(UserError):
    """Training that cannot go on."""


class Periodic(keras.callbacks.Callback):
    """Acts every so many steps, and at the last one.

    Args:
        *periods: numbers of steps between acts.
        first_step: steps that were done before this `fit`.
        last_step: steps of the whole run.

    Attributes:
        seconds: time that its acts took so far.
    """

    def __init__(self, *periods: int, first_step: int, last_step: int):
        super().__init__()
        self.periods = periods
        self.step = first_step
        self.last_step = last_step
        self.seconds = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        due = any(self.step % period == 0 for period in self.periods)
        if due or self.step == self.last_step:
            started = time.monotonic()
            self.act(logs or {})
            self.seconds += time.monotonic() - started

    def act(self, logs):
        """Does what the callback is for at `self.step`."""
        raise NotImplementedError

    def close(self) -> None:
        """Gives back what the callback holds, however training ended."""


class FiniteGuard(Periodic):
    """Tells of updates that were skipped, and stops where they are too many.

    The model skips and counts; this looks at its counts at all steps of the
    callbacks that write.

    Raises:
        TrainingStopped: says at which step.
    """

    def on_train_begin(self, logs=None):
        self.told = int(self.model.skipped_updates.numpy())

    def act(self, logs):
        skipped = int(self.model.skipped_updates.numpy())
        if skipped > self.told:
            tell(
                "step %d: %d updates since the last such line were skipped, "
                "their losses or gradients not being finite",
                self.step,
                skipped - self.told,
            )
        self.told = skipped
        refuse_bad_step(self.model)


def tell(text: str, *values) -> None:
    """Logs a line without tearing the progress bar."""
    with tqdm.external_write_mode():
        _log.info(text, *values)


def refuse_bad_step(model) -> None:
    """Raises `TrainingStopped` if too many steps in a row were not finite."""
    bad_step = int(model.bad_step.numpy())
    if bad_step:
        raise TrainingStopped(
            f"the losses or gradients of {model.max_bad_steps} steps in a row, "
            f"up to step {bad_step}, are not finite: training stopped and the "
            "checkpoints before it are kept; try lower learning rates (--set "
            "training.generator_learning_rate=...) in another --run_dir"
        )


class Checkpointing(Periodic):
    """Saves the training state; see `transgan_tf.checkpoints`.

    Training waits while the state is copied, and goes on while it is written.
    """

    def __init__(self, *periods, folder: CheckpointFolder, **kwargs):
        super().__init__(*periods, **kwargs)
        self.folder = folder
        # A run that goes on comes from a checkpoint of its first step.
        self.saved_step = self.step or None
        self.writer = ThreadPoolExecutor(max_workers=1)
        self.writing = None

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` has just reset the trackers that the checkpoint had restored.
        self.folder.restore(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if self.writing is not None and self.writing.done():
            self.finish()
        super().on_train_batch_end(batch, logs)

    def act(self, logs):
        self.save()

    def save(self) -> None:
        """Saves now, unless this step is saved already, or by another worker.

        Raises:
            TrainingStopped: the state is not worth keeping.
            RunError: the checkpoint before could not be written.
        """
        refuse_bad_step(self.model)
        step = int(self.model.step.numpy())
        if self.saved_step != step and self.folder.writable:
            self.finish()
            arrays = snapshot(self.model)
            self.writing = self.writer.submit(self.folder.write, step, arrays)
            self.saved_step = step

    def finish(self) -> None:
        """Waits until what was saved is written.

        Raises:
            RunError: it could not be.
        """
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits for the writing at hand, whatever comes of it."""
        self.writer.shutdown()


def append_record(path, record: dict) -> None:
    """Adds a line to a file of JSON lines, after whatever it ends in."""
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        # Of a process that was killed while writing.
        torn = file.read() not in (b"", b"\n")
        line = json.dumps(record, allow_nan=False) + "\n"
        file.write(("\n" * torn + line).encode())


def flush(writer) -> None:
    """Brings TensorBoard's lines down to the disk.

    Raises:
        OSError: they cannot be written, for which TensorFlow has errors of its
            own.
    """
    try:
        writer.flush()
    except tf.errors.OpError as error:
        raise OSError(
            f"TensorBoard's file cannot be written ({error.message})"
        ) from None


class Resets(Periodic):
    """Begins new means where `Curves` does, in a process that writes none."""

    def act(self, logs):
        self.model.reset_metrics()


class Curves(Periodic):
    """Writes means since the last time to `metrics.jsonl` and TensorBoard.

    Lines after the step that training continues from belong to an attempt that
    was cut off; they are taken out first.

    Args:
        arrivals: when the steps' batches came, see `StepClock`.
        others: by name, the callbacks whose time is told as `seconds_NAME`.
    """

    def __init__(
        self,
        *periods,
        run_dir,
        writer,
        images_per_step: int,
        arrivals: Arrivals,
        others: dict[str, Periodic],
        **kwargs,
    ):
        super().__init__(*periods, **kwargs)
        self.path = Path(run_dir, METRICS_FILE)
        self.writer = writer
        self.images_per_step = images_per_step
        self.clock = StepClock(arrivals)
        self.others = others
        self.starved = False

    def on_train_begin(self, logs=None):
        self.path.touch()
        lines = self.path.read_text().splitlines()
        # Before the first step there is nothing to go on from.
        kept = [line for line in lines if self.step and self._is_before(line)]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        temporary.replace(self.path)

    def _is_before(self, line):
        try:
            return json.loads(line)["step"] <= self.step
        except json.JSONDecodeError:
            # The last line of a process that was killed while writing it.
            return False

    def on_train_batch_begin(self, batch, logs=None):
        self.clock.begin()

    def on_train_batch_end(self, batch, logs=None):
        self.clock.end()
        super().on_train_batch_end(batch, logs)

    def act(self, logs):
        record = {"step": self.step, "images": self.step * self.images_per_step}
        values = self._means(logs) | self._times()
        append_record(self.path, record | values)
        with self.writer.as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self.model.reset_metrics()

    def _means(self, logs):
        skipped = float(self.model.skipped_updates.numpy())
        values = {name: float(value) for name, value in logs.items()}
        trackers = self.model.trackers.values()
        if not any(tracker.count.numpy() for tracker in trackers):
            # All the steps were skipped: 0 would look like a loss.
            values = {}
        return values | {"skipped_updates": skipped}

    def _times(self):
        times = self.clock.take(self.images_per_step)
        starved = times.get("data_wait_share", 0.0) > STARVED
        if starved and not self.starved:
            tell(
                "step %d: the device waits for data for %.0f %% of the time: "
                "a faster disk, more CPU cores, or images prepared in the "
                "networks' size (python -m pipeline.preprocess) would help",
                self.step,
                100 * times["data_wait_share"],
            )
        self.starved = starved
        for name, other in self.others.items():
            times[f"seconds_{name}"], other.seconds = other.seconds, 0.0
        return times


class SampleGrids(Periodic):
    """Draws the same 64 seeds again and again, from before the first step."""

    def __init__(self, *periods, run_dir, writer, **kwargs):
        super().__init__(*periods, **kwargs)
        self.folder = Path(run_dir, "samples")
        self.writer = writer

    def on_train_begin(self, logs=None):
        if self.step == 0:
            self.act({})

    def act(self, logs):
        image = grid(generate(self.model.ema_generator, GRID_SEEDS))
        write_png(self.folder / f"step-{self.step:09d}.png", image)
        with self.writer.as_default(step=self.step):
            tf.summary.image("samples", image[None])
        flush(self.writer)


class ProgressBar(Periodic):
    """Images per second, losses and the time left, on standard error."""

    def __init__(self, *periods, images_per_step, **kwargs):
        super().__init__(*periods, **kwargs)
        self.images_per_step = images_per_step
        self.bar = None

    def on_train_begin(self, logs=None):
        self.bar = progress_bar(
            self.last_step * self.images_per_step,
            initial=self.step * self.images_per_step,
        )
        self._describe()

    def _describe(self):
        text = f"step {self.step}/{self.last_step}"
        self.bar.set_description(text, refresh=False)

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self._describe()
        self.bar.update(self.images_per_step)

    def act(self, logs):
        losses = {
            name: f"{float(logs[name]):.3f}"
            for name in ("discriminator_loss", "generator_loss")
        }
        self.bar.set_postfix(losses, refresh=False)

    def close(self) -> None:
        """Leaves the bar as it stands and ends its line."""
        if self.bar is not None:
            self.bar.close()


class Interruption(keras.callbacks.Callback):
    """Lets SIGINT and SIGTERM end training after the step at hand.

    A second signal raises `KeyboardInterrupt`, as soon as TensorFlow returns to
    Python. Signals reach a process's main thread alone; trained in another, the
    model just trains.

    Args:
        agree: called after every step with this process's exit status; returns
            the one with which it stops, or 0.

    Attributes:
        noted: the exit status after a signal to this process, 130 or 143, or 0.
        status: the one with which training stops, or 0.
    """

    def __init__(self, agree: Callable[[int], int] = int):
        super().__init__()
        self.agree = agree
        self.noted = self.status = 0
        self.previous = {}

    def install_handlers(self) -> None:
        """Takes the signals; before `fit`, whose start may take minutes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        if self.noted:
            raise KeyboardInterrupt
        self.noted = 128 + number

    def on_train_batch_end(self, batch, logs=None):
        self.status = self.agree(self.noted)
        if self.status:
            self.model.stop_training = True

    def close(self) -> None:
        """Gives the signals back to who had them before."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
