"""A whole training run: from a configuration and images to a run's folder."""

import logging
from dataclasses import replace
from pathlib import Path

import keras
import tensorflow as tf

from transgan_tf.checked import require
from transgan_tf.cli import show_log
from transgan_tf.configs import Config
from transgan_tf.configs import TrainingConfig
from transgan_tf.evaluating import is_scored
from transgan_tf.evaluating import make_evaluator
from transgan_tf.fitting import fit
from transgan_tf.fitting import score_last
from transgan_tf.gan import make_gan
from transgan_tf.memory import refuse_excess
from transgan_tf.runs import close_log
from transgan_tf.runs import open_run
from transgan_tf.stores import as_store
from transgan_tf.stores import check_size
from transgan_tf.workers import SharedFolder
from transgan_tf.workers import Workers
from transgan_tf.workers import connect

_log = logging.getLogger(__name__)


def train(
    config: Config,
    images,
    run_dir,
    name: str,
    strategy: tf.distribute.Strategy | None = None,
    force: bool = False,
) -> int:
    """Trains to the configured number of steps, from the newest checkpoint.

    Several workers (`transgan_tf.workers`) call it alike; only the chief uses
    the run's folder.

    Args:
        config: everything that the run depends on.
        images: `Store`, or uint8 `(N, H, W, C)`, of the configured size.
        run_dir: the run's folder.
        name: what the images are called.
        strategy: the configured one, if it has been made already.
        force: whether to try what is estimated to run out of memory.

    Returns:
        0, or 130 or 143 after a signal; the state is saved in all cases.

    Raises:
        UserError: the images or the batch do not fit, memory would not
            suffice, the folder is of another run, too many steps in a row are
            not finite;
            another worker failed or is lost.
    """
    if strategy is None:
        strategy = make_strategy(config.training.strategy)
    workers = Workers(strategy)
    try:
        with workers.losing_none():
            with workers.together():
                store = as_store(images)
                check_size(store, config)
                check_split(config.training, strategy.num_replicas_in_sync)
                if not force:
                    refuse_excess(config, strategy)
            config = replace(config, dataset=f"{name}, {store.fingerprint}")
            workers.check_same(config)
            with workers.together():
                open_run(run_dir, config) if workers.is_chief else show_log()
            status = _train(config, store, run_dir, workers)
            # For the chief to have written everything, and none to seem lost.
            workers.exchange("done")
            return status
    finally:
        close_log()


def _train(config, store, run_dir, workers):
    """Makes the model, continues from the newest checkpoint, and fits."""
    make_exact(config.training.seed)
    with workers.strategy.scope():
        gan = make_gan(config)
    keep = config.training.keep_checkpoints
    folder = SharedFolder(Path(run_dir, "checkpoints"), keep, workers)
    resumed = folder.restore(gan)
    first_step = int(gan.step.numpy())
    how = f"goes on at step {first_step}" if resumed else "starts"
    _log.info("%s %s, %d images", run_dir, how, store.count)
    done = first_step >= config.training.steps
    with workers.together():
        evaluator = None
        if not (done and is_scored(run_dir, first_step)):
            evaluator = _evaluator(config.evaluation, store, workers)
    if done:
        _log.info("the run has done its %d steps", first_step)
        # The last evaluation may have been interrupted.
        score_last(gan, config, run_dir, folder, evaluator)
        return 0
    return fit(gan, config, store, run_dir, folder, evaluator)


def _evaluator(settings, store, workers):
    """Returns the `Evaluator` of this process, or None if it scores nothing.

    Of several workers the chief scores alone, on its first device, and the
    others wait.
    """
    if not settings.every_images or not workers.is_chief:
        return None
    alone = tf.distribute.get_strategy()
    strategy = workers.strategy if workers.count == 1 else alone
    return make_evaluator(settings, store, strategy)


def check_split(training: TrainingConfig, replicas: int) -> None:
    """Raises `ConfigError` unless the batches can be split evenly."""
    batches = {
        "training.batch_size": (training.batch_size, training.accumulation),
        "the generator's batch": (
            training.generator_batch_size,
            training.generator_accumulation,
        ),
    }
    for field, (size, parts) in batches.items():
        rule = (
            f"must be divisible by {replicas} devices x {parts} micro-batches"
        )
        require(size % (replicas * parts) == 0, field, rule, size)


def make_exact(seed: int) -> None:
    """Fixes initial weights, makes every operation deterministic and float32.

    TensorFlow would multiply float32 matrices in TF32, of 10 bits, where a GPU
    can.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy of a configuration's name.

    `"auto"` mirrors over GPUs if there are several; `"mirrored"` over all
    GPUs, or else over all logical CPU devices. `"multi_worker"` waits for the
    other processes of `TF_CONFIG`.
    """
    if name == "multi_worker":
        return connect()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "none" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = gpus or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([d.name for d in devices])
