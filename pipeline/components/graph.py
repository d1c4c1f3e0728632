"""The pipeline: which components there are, and what goes from each to others.

Imports neither TensorFlow nor Beam. No component's body imports it, so that
wiring one anew leaves the others' results as they are.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict

from pipeline.components.configuration import judging_settings
from pipeline.components.configuration import split_config
from pipeline.components.external import features_state
from pipeline.components.external import source_state
from pipeline.components.schema import Schema
from pipeline.flags import PipelineFlags
from pipeline.orchestration.component import Channel
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import Latest
from transgan_tf.checked import ConfigError
from transgan_tf.checked import require

# Until the embedded server must have loaded a candidate.
LOADING_SECONDS = 300.0

# What `transgan_tf.sample` and `transgan_tf.curves` make.
_PICTURES = ("*.png", "*.gif", "*.mp4")

_EXAMPLES = Channel("ExampleGen", "examples")
_STATISTICS = Channel("StatisticsGen", "statistics")
_ANOMALIES = Channel("ExampleValidator", "anomalies")
_EXAMPLES_BLESSING = Channel("ExampleValidator", "blessing")
_RUN, _MODEL = Channel("Trainer", "model_run"), Channel("Trainer", "model")
_EVALUATION = Channel("Evaluator", "evaluation")
_BLESSING = Channel("Evaluator", "blessing")
_INFRA_BLESSING = Channel("InfraValidator", "blessing")


def make_components(
    flags: PipelineFlags, beam_flags: Sequence[str]
) -> list[Component]:
    """Returns the components in the order of execution.

    Args:
        flags: what the pipeline depends on.
        beam_flags: words for Beam's `PipelineOptions`.

    Raises:
        UserError: the flags cannot be meant so.
    """
    flags.check()
    config = flags.config()
    _check_size(flags.settings(), config)
    if "fid" not in config.evaluation.metric_names:
        raise ConfigError(
            "the Evaluator judges by the FID: put fid into evaluation.metrics, "
            f"got {config.evaluation.metrics!r}"
        )
    return [
        _example_gen(flags, beam_flags),
        _component(
            "StatisticsGen",
            inputs={"examples": _EXAMPLES},
            outputs={"statistics": "ExampleStatistics"},
        ),
        _example_validator(flags, config),
        _trainer(config),
        _evaluator(flags, config),
        _component(
            "InfraValidator",
            inputs={"model": _MODEL},
            outputs={"blessing": "InfraBlessing"},
            settings={"loading_seconds": LOADING_SECONDS},
        ),
        _pusher(flags),
    ]


def _example_gen(flags, beam_flags):
    source = flags.source_facts()
    return _component(
        "ExampleGen",
        inputs={},
        outputs={"examples": "Examples"},
        parameters={
            "dataset": flags.dataset,
            "settings": asdict(flags.settings()),
            "source": source,
            "source_state": source_state(source["path"], source["kind"]),
            "max_bad_fraction": flags.max_bad_fraction,
        },
        settings={"beam_flags": list(beam_flags)},
    )


def _example_validator(flags, config):
    settings = flags.settings()
    schema = Schema(
        settings.image_size,
        settings.channels,
        min_images=config.training.batch_size,
        max_quarantined=flags.max_bad_fraction,
    )
    return _component(
        "ExampleValidator",
        inputs={
            "statistics": _STATISTICS,
            "previous_statistics": Latest(_STATISTICS, _ANOMALIES, "valid"),
        },
        # Apart from the anomalies, which tell the drift from earlier images: on
        # these a training does not depend.
        outputs={
            "anomalies": "ExampleAnomalies",
            "blessing": "ExampleBlessing",
        },
        parameters={
            "schema": asdict(schema.changed_by(flags.schema)),
            "max_drift": flags.max_drift,
        },
    )


def _trainer(config):
    parameters, settings = split_config(config)
    return _component(
        "Trainer",
        inputs={
            "examples": _EXAMPLES,
            "examples_blessing": _EXAMPLES_BLESSING,
        },
        outputs={"model_run": "ModelRun", "model": "Model"},
        parameters={"config": parameters},
        settings={"settings": settings},
        # Training goes on from its last checkpoint.
        resumable=("model_run",),
        # `python -m transgan_tf.evaluate` adds its scores to a run; and what
        # is drawn there is no reason to train again.
        growing=("*/metrics.jsonl", "*/tensorboard/*", *_PICTURES),
    )


def _evaluator(flags, config):
    # Several workers train together, but one process scores.
    strategy = config.training.strategy
    return _component(
        "Evaluator",
        inputs={
            "examples": _EXAMPLES,
            "model_run": _RUN,
            "model": _MODEL,
            "baseline_run": Latest(_RUN, _BLESSING, "blessed"),
        },
        outputs={"evaluation": "ModelEvaluation", "blessing": "ModelBlessing"},
        parameters={
            "scoring": judging_settings(config),
            "features_state": features_state(config.evaluation.features),
            "max_fid": flags.max_fid,
            "max_fid_increase": flags.max_fid_increase,
        },
        settings={
            "strategy": "auto" if strategy == "multi_worker" else strategy
        },
    )


def _pusher(flags):
    return _component(
        "Pusher",
        inputs={
            "model": _MODEL,
            "model_blessing": _BLESSING,
            "infra_blessing": _INFRA_BLESSING,
            "evaluation": _EVALUATION,
        },
        outputs={"pushed_model": "PushedModel"},
        parameters={
            "model_dir": os.path.abspath(flags.model_dir),
            "data_licence": flags.data_licence,
            # So that another number is put into effect at once.
            "keep": flags.keep,
        },
        standing="pipeline.components.pusher:why_not_standing",
    )


def _component(name, **parts):
    """Returns a component whose body is `run` in the module of its name."""
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    return Component(name, f"pipeline.components.{words[1:]}:run", **parts)


def _check_size(settings, config):
    """Raises `ConfigError` unless the networks take the images."""
    for field in ("image_size", "channels"):
        made, taken = getattr(settings, field), getattr(config.generator, field)
        rule = f"must be that of the networks, {taken}, or choose a --preset"
        require(made == taken, f"--{field}", rule, made)
