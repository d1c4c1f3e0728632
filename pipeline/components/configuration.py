"""A configuration in two parts: what results depend on, and what they do not.

Imports neither TensorFlow nor Beam.
"""

import copy

from transgan_tf.configs import Config
from transgan_tf.runs import CHANGEABLE

# A run may go on to another number of steps, which is another model.
_PARTS = tuple(name for name in CHANGEABLE if name != "training.steps")
# How a training scores itself and how a model is judged are told alike, but
# only this part changes the judgement.
JUDGING = ("num_images", "seed", "attention_noise", "features", "metrics")


def split_config(config: Config) -> tuple[dict, dict]:
    """Returns what a training's results depend on, and the rest.

    The rest is what `transgan_tf.runs` lets change between two starts of a
    run, but for the number of steps: how work is spread and what is written.

    Returns:
        Two dicts that `join_config` puts together.
    """
    parameters = copy.deepcopy(config.to_dict())
    settings = {}
    for part in ("training", "evaluation"):
        settings[part] = {
            name: parameters[part].pop(name)
            for name in list(parameters[part])
            if f"{part}.{name}".startswith(_PARTS)
        }
    return parameters, settings


def join_config(parameters: dict, settings: dict) -> Config:
    """Inverts `split_config`."""
    values = dict(parameters)
    for part, fields in settings.items():
        values[part] = values[part] | fields
    return Config.from_dict(values)


def judging_settings(config: Config) -> dict:
    """Returns the fields of `EvaluationConfig` that scores depend on."""
    return {name: getattr(config.evaluation, name) for name in JUDGING}
