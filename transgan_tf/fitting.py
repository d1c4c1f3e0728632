"""The steps of a run, and all that happens beside them."""

import contextlib
import logging
import math
from pathlib import Path

import tensorflow as tf

from transgan_tf.callbacks import Checkpointing
from transgan_tf.callbacks import Curves
from transgan_tf.callbacks import FiniteGuard
from transgan_tf.callbacks import Interruption
from transgan_tf.callbacks import ProgressBar
from transgan_tf.callbacks import Resets
from transgan_tf.callbacks import SampleGrids
from transgan_tf.configs import Config
from transgan_tf.evaluating import Evaluating
from transgan_tf.evaluation import Evaluator
from transgan_tf.gan import TransGAN
from transgan_tf.stores import Store
from transgan_tf.stores import reading
from transgan_tf.stream import step_batches
from transgan_tf.timing import Arrivals
from transgan_tf.workers import SharedFolder

_log = logging.getLogger(__name__)


def fit(
    gan: TransGAN,
    config: Config,
    store: Store,
    run_dir,
    folder: SharedFolder,
    evaluator: Evaluator | None = None,
) -> int:
    """Runs `gan.fit` with all callbacks; returns the exit status."""
    training = config.training
    first_step = int(gan.step.numpy())
    arrivals = Arrivals()
    # Nobody else takes them out again.
    noted = arrivals if folder.workers.is_chief else None
    with _event_writer(run_dir, folder.workers) as writer:
        callbacks = make_callbacks(
            config, first_step, run_dir, writer, folder, evaluator, arrivals
        )
        *_, checkpointing, interruption = callbacks
        interruption.install_handlers()
        with (
            _closing(callbacks),
            _saving(checkpointing),
            reading(),
            # Another's error may have its text, of an image perhaps.
            folder.workers.losing_none(),
        ):
            gan.fit(
                distribute(store, training, first_step, gan, noted),
                steps_per_epoch=training.steps - first_step,
                callbacks=callbacks,
                verbose=0,
                shuffle=False,
            )
    if interruption.status:
        _log.info("interrupted and saved at step %d", checkpointing.step)
    return interruption.status


def score_last(
    gan: TransGAN,
    config: Config,
    run_dir,
    folder: SharedFolder,
    evaluator: Evaluator | None,
) -> None:
    """Scores a run that has done its steps; None for an evaluator does not."""
    step = int(gan.step.numpy())
    with _event_writer(run_dir, folder.workers) as writer:
        callbacks = make_callbacks(
            config, step, run_dir, writer, folder, evaluator, Arrivals()
        )
        with _closing(callbacks):
            for callback in callbacks:
                if isinstance(callback, Evaluating):
                    callback.set_model(gan)
                    callback.act({})


@contextlib.contextmanager
def _event_writer(run_dir, workers):
    """Gives the writer of TensorBoard's files, which is the chief's alone."""
    writer = tf.summary.create_noop_writer()
    if workers.is_chief:
        place = str(Path(run_dir, "tensorboard"))
        writer = tf.summary.create_file_writer(place)
    try:
        yield writer
    finally:
        try:
            writer.close()
        except tf.errors.OpError as error:
            # It must not stand in for what has gone wrong before.
            _log.warning("TensorBoard's file is not whole (%s)", error.message)


@contextlib.contextmanager
def _closing(callbacks):
    try:
        yield
    finally:
        for callback in callbacks:
            callback.close()


@contextlib.contextmanager
def _saving(checkpointing):
    """Saves after the steps of this block.

    Not after one that failed: of its variables some may have moved on.
    """
    try:
        yield
    except OSError:
        # A picture that cannot be written must not cost the steps before it.
        checkpointing.save()
        checkpointing.finish()
        raise
    checkpointing.save()
    checkpointing.finish()


def make_callbacks(
    config, first_step, run_dir, writer, folder, evaluator, arrivals
) -> list:
    """Returns the callbacks of a run, in the order in which they act.

    The last two are those that save and that stop. A worker that is not the
    chief gets those alone that write nothing.
    """
    training = config.training
    periods = (
        training.log_every_steps,
        training.sample_every_steps,
        training.checkpoint_every_steps,
    )
    log_every, sample_every, save_every = periods
    span = {"first_step": first_step, "last_step": training.steps}
    images = {"images_per_step": training.images_per_step}
    written = span | {"run_dir": run_dir, "writer": writer}
    guard = FiniteGuard(*periods, **span)
    checkpointing = Checkpointing(save_every, **span, folder=folder)
    interruption = Interruption(folder.workers.agree)
    if not folder.workers.is_chief:
        resets = Resets(log_every, **span)
        return [guard, resets, checkpointing, interruption]
    samples = SampleGrids(sample_every, **written)
    timed = {"samples": samples, "checkpoint": checkpointing}
    evaluating = []
    if evaluator is not None:
        every_images = config.evaluation.every_images
        timed["evaluation"] = Evaluating(
            math.ceil(every_images / training.images_per_step),
            **written,
            **images,
            evaluator=evaluator,
            checkpointing=checkpointing,
            stop=lambda: interruption.noted != 0,
        )
        evaluating = [timed["evaluation"]]
    bar = ProgressBar(log_every, **span, **images)
    curves = Curves(
        log_every, **written, **images, arrivals=arrivals, others=timed
    )
    return [
        guard,
        bar,
        curves,
        samples,
        *evaluating,
        checkpointing,
        interruption,
    ]


def distribute(store: Store, training, first_step: int, gan, arrivals):
    """Returns the batches of all steps as the devices of `gan` take them.

    Each worker reads rows of its own, and each of its devices gets neighbouring
    ones of these.
    """
    strategy = gan.distribute_strategy

    def share(context):
        workers = context.num_input_pipelines
        batches = step_batches(
            store, training, first_step, context.input_pipeline_id, workers
        )
        if arrivals is not None:
            batches = arrivals.note(batches)
        devices = context.num_replicas_in_sync
        if devices > workers:
            size = training.images_per_step // devices
            batches = batches.rebatch(size, drop_remainder=True)
        # For data that may end, workers would agree before every step whether
        # all have some, and batches would lose their static size.
        return batches.repeat() if workers > 1 else batches

    return strategy.distribute_datasets_from_function(share)
