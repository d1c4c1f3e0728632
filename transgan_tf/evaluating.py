"""Scores while training: the callback, and the best checkpoint."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from transgan_tf.callbacks import METRICS_FILE
from transgan_tf.callbacks import Checkpointing
from transgan_tf.callbacks import Periodic
from transgan_tf.callbacks import append_record
from transgan_tf.callbacks import flush
from transgan_tf.callbacks import tell
from transgan_tf.checked import UserError
from transgan_tf.checkpoints import BEST
from transgan_tf.configs import EvaluationConfig
from transgan_tf.evaluation import Evaluator
from transgan_tf.evaluation import reference_of
from transgan_tf.metrics.features import load_features
from transgan_tf.stores import Store

# Numbers that are not named as the metric that gives them.
_METRIC_OF = {
    "precision": "precision_recall",
    "recall": "precision_recall",
    "density": "density_coverage",
    "coverage": "density_coverage",
}


class Evaluating(Periodic):
    """Scores the averaged generator, from before the first step on.

    An evaluation that fails is reported, and training goes on.

    Args:
        evaluator: `Evaluator`.
        checkpointing: saves what turns out the best, if the settings say so.
        stop: asked while sampling; True gives the evaluation up.
    """

    def __init__(
        self,
        *periods,
        run_dir,
        writer,
        images_per_step: int,
        evaluator: Evaluator,
        checkpointing: Checkpointing,
        stop: Callable[[], bool],
        **kwargs,
    ):
        super().__init__(*periods, **kwargs)
        self.run_dir = Path(run_dir)
        self.writer = writer
        self.images_per_step = images_per_step
        self.evaluator = evaluator
        self.checkpointing = checkpointing
        self.stop = stop

    def on_train_begin(self, logs=None):
        # One that a signal interrupted is made up for.
        due = self.step % self.periods[0] == 0
        if due and not is_scored(self.run_dir, self.step):
            self.act({})

    def act(self, logs):
        try:
            result = self.evaluator.score(self.model.ema_generator, self.stop)
        except Exception as error:
            # Whatever it is, it must not cost the training.
            tell("step %d: not scored, training goes on: %s", self.step, error)
            return
        images = self.step * self.images_per_step
        if self.evaluator.settings.keep_best and self.step > 0:
            self._keep_if_best(result)
        record_scores(self.run_dir, self.writer, self.step, images, result)
        tell("step %d: %s", self.step, describe_scores(result))

    def _keep_if_best(self, result):
        best = best_fid(self.run_dir, result["protocol"])
        if best is None or result["metrics"]["fid"] < best:
            self.checkpointing.save()
            self.checkpointing.finish()
            self.checkpointing.folder.name_newest(BEST)


def make_evaluator(
    settings: EvaluationConfig, store: Store, strategy: tf.distribute.Strategy
) -> Evaluator:
    """Loads the feature network, without downloading, and the reference.

    Raises:
        UserError: the network is not there, or cannot give the metrics.
    """
    network = load_features(settings.features, strategy)
    reference = reference_of(store, network, strategy)
    return Evaluator(network, reference, settings, strategy)


def record_scores(run_dir, writer, step: int, images: int, result: dict):
    """Writes what `Evaluator.score` returned to a run and its TensorBoard."""
    record = {"step": step, "images": images, "evaluation": result}
    append_record(Path(run_dir, METRICS_FILE), record)
    with writer.as_default(step=step):
        for name, value in result["metrics"].items():
            tf.summary.scalar(f"evaluation/{name}", value)
        text = json.dumps(result, indent=2)
        tf.summary.text("evaluation", f"```\n{text}\n```")
    flush(writer)


def add_to_run(run_dir, step: int, images: int, result: dict) -> None:
    """Writes scores to a run that is not training here; see `record_scores`.

    Raises:
        UserError: the run's folder cannot be written.
    """
    folder = str(Path(run_dir, "tensorboard"))
    try:
        writer = tf.summary.create_file_writer(folder)
        record_scores(run_dir, writer, step, images, result)
        writer.close()
    except (OSError, tf.errors.OpError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the scores could not be added to {run_dir} ({reason}): give "
            "yourself permission, or keep what was printed"
        ) from None


def evaluations(run_dir) -> list[dict]:
    """Returns the lines of a run's `metrics.jsonl` that hold scores.

    Lines that cannot be read, of a process that was killed, are passed over.
    """
    path = Path(run_dir, METRICS_FILE)
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return [r for r in records if isinstance(r, dict) and "evaluation" in r]


def is_scored(run_dir, step: int) -> bool:
    """Tells whether a step's scores stand in a run's `metrics.jsonl`."""
    return step in {record["step"] for record in evaluations(run_dir)}


def best_fid(run_dir, protocol: dict) -> float | None:
    """Returns the lowest FID after the first step, or None before there is one.

    Only of lines of the same protocol, but for the version of the code: others
    do not compare.
    """
    same = protocol | {"code": ""}
    return min(
        (
            record["evaluation"]["metrics"]["fid"]
            for record in evaluations(run_dir)
            if record["step"] > 0
            and record["evaluation"]["protocol"] | {"code": ""} == same
            and "fid" in record["evaluation"]["metrics"]
        ),
        default=None,
    )


def describe_scores(result: dict) -> str:
    """Returns scores on one line, such as `fid 10.5 (too few samples)`."""
    texts = []
    for name, value in result["metrics"].items():
        if not name.endswith("_std"):
            metric = _METRIC_OF.get(name, name)
            few = " (too few samples)" if metric in result["too_few"] else ""
            texts.append(f"{name} {value:.4g}{few}")
    return ", ".join(texts)
