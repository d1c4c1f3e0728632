"""Evaluator: scores what was trained, and blesses it or not."""

import json
import math
from pathlib import Path

from pipeline.components.datasets import dataset_folder
from pipeline.components.gate import judge
from pipeline.components.names import METRICS
from pipeline.components.names import SAMPLES
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.manifest import load_manifest
from transgan_tf.pictures import grid
from transgan_tf.pictures import write_png

BLESSED, NOT_BLESSED = "BLESSED", "NOT_BLESSED"
SHOWN = 64


def run(
    examples: Artifact,
    model_run: Artifact,
    model: Artifact,
    baseline_run: Artifact | None,
    evaluation: Path,
    blessing: Path,
    scoring: dict,
    features_state: str | None,
    max_fid: float | None,
    max_fid_increase: float | None,
    strategy: str,
) -> dict:
    """Writes scores, a grid of samples if there are, and the blessing.

    Args:
        examples: the images that scores compare with, of the split `train`.
        model_run: the run that is judged.
        model: what was exported of it.
        baseline_run: the last run before that was blessed.
        evaluation, blessing: folders of the outputs.
        scoring: fields of `EvaluationConfig`.
        features_state: tells the network of features from others of its name;
            it is only there for the scores to be taken again when that changes.
        max_fid, max_fid_increase: see `gate.judge`.
        strategy: how sampling is spread over devices.

    Raises:
        UserError: scores cannot be had.
    """
    cli.import_tensorflow_quietly()
    cli.show_log()
    dataset = dataset_folder(examples.path)
    scorer = _Scorer(dataset, scoring, strategy)
    result = scorer.score(model_run)
    if max_fid_increase is None:
        # Nothing would be compared with it.
        baseline_run = None
    settings = load_manifest(dataset).settings
    baseline, other = _score_baseline(scorer, baseline_run, settings)
    verdict = judge(
        result["metrics"].get("fid"),
        baseline and baseline["metrics"]["fid"],
        max_fid,
        max_fid_increase,
        other,
    )
    _write_scores(evaluation / METRICS, result, baseline, verdict)
    if not result["problem"]:
        write_png(evaluation / SAMPLES, scorer.samples(model_run))
    told = _bless(blessing, verdict) | {"current_model": model.fingerprint}
    if baseline is not None:
        told["baseline_run"] = baseline_run.fingerprint
    return {"evaluation": dict(result["metrics"]), "blessing": told}


def _score_baseline(scorer, baseline_run, settings):
    """Returns the baseline's scores or None, and why there are none."""
    try:
        other = _why_not_compared(baseline_run, settings)
        if other:
            return None, other
        baseline = scorer.score(baseline_run)
        problem = baseline["problem"]
        if "fid" not in baseline["metrics"]:
            problem = problem or "its FID is not a number"
    except UserError as error:
        problem = str(error)
    if problem:
        raise ComponentError(
            f"the last blessed run could not be scored ({problem}): remove "
            f"{baseline_run.path} to compare with the one before it, or say "
            "--max_fid_increase=None not to compare"
        )
    return baseline, ""


def _write_scores(path, result, baseline, verdict):
    content = result | {
        "baseline": baseline,
        "thresholds": verdict.thresholds,
        "reason": verdict.reason,
    }
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    path.write_text(text)


def _bless(blessing, verdict):
    """Writes the verdict and tells it; returns the blessing's properties."""
    if verdict.judged:
        (blessing / (BLESSED if verdict.blessed else NOT_BLESSED)).touch()
    print(
        f"{'blessed' if verdict.blessed else 'not blessed'}: {verdict.reason}"
    )
    return {"blessed": int(verdict.blessed), "reason": verdict.reason}


def _why_not_compared(baseline_run, settings) -> str:
    """Returns why there is no baseline of these images, or nothing."""
    from transgan_tf.checkpoints import load_config

    if baseline_run is None:
        return "no model was blessed before"
    made = load_config(_run_dir(baseline_run)).generator
    sizes = (made.image_size, made.channels)
    if sizes == (settings.image_size, settings.channels):
        return ""
    return "the last blessed model makes images of another size"


class _Scorer:
    """Scores runs against one dataset by one protocol."""

    def __init__(self, dataset, scoring, strategy):
        from transgan_tf.configs import EvaluationConfig
        from transgan_tf.evaluation import Evaluator
        from transgan_tf.evaluation import reference_of
        from transgan_tf.metrics.features import load_features
        from transgan_tf.stores import RecordStore
        from transgan_tf.training import make_exact
        from transgan_tf.training import make_strategy

        make_exact(seed=0)
        settings = EvaluationConfig(**scoring, time_limit=0)
        self.strategy = make_strategy(strategy)
        network = load_features(settings.features, self.strategy, download=True)
        reference = reference_of(RecordStore(dataset), network, self.strategy)
        self.evaluator = Evaluator(network, reference, settings, self.strategy)

    def score(self, model_run) -> dict:
        """Returns metrics, protocol and what else tells of a run's scores.

        Of a generator whose samples are not finite there are no metrics, but a
        `problem`; a metric that is not a number is left out.
        """
        from transgan_tf.checkpoints import find_checkpoint
        from transgan_tf.evaluation import EvaluationError

        run_dir = _run_dir(model_run)
        _, step = find_checkpoint(run_dir)
        generator = self._generator(model_run)
        made = "/".join(model_run.path.parts[-3:])
        told = {"run": made, "step": step, "problem": ""}
        try:
            result = self.evaluator.score(generator)
        except EvaluationError as error:
            protocol = self.evaluator.protocol(generator)
            result = {"metrics": {}, "too_few": [], "protocol": protocol}
            told["problem"] = str(error)
        numbers = result["metrics"].items()
        metrics = {name: n for name, n in numbers if math.isfinite(n)}
        return told | result | {"metrics": metrics}

    def samples(self, model_run):
        """Returns a grid of the images of the first seeds."""
        from transgan_tf.sampling import generate

        return grid(generate(self._generator(model_run), range(SHOWN)))

    def _generator(self, model_run):
        from transgan_tf.checkpoints import load_generator

        with self.strategy.scope():
            return load_generator(_run_dir(model_run))


def _run_dir(model_run: Artifact) -> Path:
    """Returns the run's folder, which is named as the dataset."""
    (config,) = model_run.path.glob("*/config.json")
    return config.parent
