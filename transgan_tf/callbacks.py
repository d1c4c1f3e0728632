"""What happens beside the steps: curves, grids, checkpoints, the bar, stops."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from transgan_tf.checked import UserError
from transgan_tf.checkpoints import CheckpointFolder
from transgan_tf.cli import progress_bar
from transgan_tf.sampling import generate
from transgan_tf.sampling import grid
from transgan_tf.sampling import write_png

GRID_SEEDS = np.arange(64)
METRICS_FILE = "metrics.jsonl"


class TrainingStopped(UserError):
    """Training that cannot go on."""


class Periodic(keras.callbacks.Callback):
    """Acts every so many steps, and at the last one.

    Args:
        *periods: numbers of steps between acts.
        first_step: steps that were done before this `fit`.
        last_step: steps of the whole run.
    """

    def __init__(self, *periods: int, first_step: int, last_step: int):
        super().__init__()
        self.periods = periods
        self.step = first_step
        self.last_step = last_step

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        due = any(self.step % period == 0 for period in self.periods)
        if due or self.step == self.last_step:
            self.act(logs or {})

    def act(self, logs):
        """Does what the callback is for at `self.step`."""
        raise NotImplementedError


class FiniteGuard(Periodic):
    """Stops training when a gradient was not finite.

    The model notes the step itself; this looks at the note at all steps of the
    callbacks that write, and before them, so that what they write is finite.

    Raises:
        TrainingStopped: says at which step.
    """

    def act(self, logs):
        refuse_bad_step(self.model)


def refuse_bad_step(model) -> None:
    """Raises `TrainingStopped` if a loss or gradient was not finite."""
    bad_step = int(model.bad_step.numpy())
    if bad_step:
        raise TrainingStopped(
            f"the losses or gradients of step {bad_step} are not finite: "
            "training stopped and the checkpoints before it are kept; try "
            "lower learning rates (--set training.generator_learning_rate=...) "
            "in another --run_dir"
        )


class Checkpointing(Periodic):
    """Saves the training state; see `transgan_tf.checkpoints`."""

    def __init__(self, *periods, folder: CheckpointFolder, **kwargs):
        super().__init__(*periods, **kwargs)
        self.folder = folder
        self.saved_step = None

    def on_epoch_begin(self, epoch, logs=None):
        # `fit` has just reset the trackers that the checkpoint had restored.
        self.folder.restore(self.model)

    def act(self, logs):
        self.save()

    def save(self) -> None:
        """Saves now, unless this step is saved already.

        Raises:
            TrainingStopped: the state is not worth keeping.
        """
        refuse_bad_step(self.model)
        step = int(self.model.step.numpy())
        if self.saved_step != step:
            self.folder.save(self.model)
            self.saved_step = step


def append_record(path, record: dict) -> None:
    """Adds a line to a file of JSON lines, after whatever it ends in."""
    with open(path, "ab+") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(end - 1, 0))
        # Of a process that was killed while writing.
        torn = file.read() not in (b"", b"\n")
        line = json.dumps(record, allow_nan=False) + "\n"
        file.write(("\n" * torn + line).encode())


class Curves(Periodic):
    """Writes means since the last time to `metrics.jsonl` and TensorBoard.

    Lines after the step that training continues from belong to an attempt that
    was cut off; they are taken out first.
    """

    def __init__(self, *periods, run_dir, writer, images_per_step, **kwargs):
        super().__init__(*periods, **kwargs)
        self.path = Path(run_dir, METRICS_FILE)
        self.writer = writer
        self.images_per_step = images_per_step

    def on_train_begin(self, logs=None):
        self.path.touch()
        lines = self.path.read_text().splitlines()
        # Before the first step there is nothing to go on from.
        kept = [line for line in lines if self.step and self._is_before(line)]
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        temporary.replace(self.path)
        self.marked = None
        self.compiled = False

    def _is_before(self, line):
        try:
            return json.loads(line)["step"] <= self.step
        except json.JSONDecodeError:
            # The last line of a process that was killed while writing it.
            return False

    def on_train_batch_begin(self, batch, logs=None):
        # Here, so that what other callbacks take after `act` is left out; and
        # the first step compiles, which is no measure of speed.
        if self.compiled and self.marked is None:
            self.marked = (time.monotonic(), self.step)
        self.compiled = True

    def act(self, logs):
        values = {name: float(value) for name, value in logs.items()}
        if self.marked is not None:
            seconds = time.monotonic() - self.marked[0]
            images = (self.step - self.marked[1]) * self.images_per_step
            values["images_per_second"] = images / seconds
        record = {"step": self.step, "images": self.step * self.images_per_step}
        append_record(self.path, record | values)
        with self.writer.as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self.model.reset_metrics()
        self.marked = None


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
        self.writer.flush()


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

    Attributes:
        status: the exit status that such a process has, 130 or 143, or 0.
    """

    def __init__(self):
        super().__init__()
        self.status = 0
        self.previous = {}

    def on_train_begin(self, logs=None):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._note)

    def _note(self, number, frame):
        if self.status:
            raise KeyboardInterrupt
        self.status = 128 + number

    def on_train_batch_end(self, batch, logs=None):
        if self.status:
            self.model.stop_training = True

    def restore_handlers(self) -> None:
        """Gives the signals back to who had them before."""
        for number, handler in self.previous.items():
            signal.signal(number, handler)
