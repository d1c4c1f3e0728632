"""Golden weights of the authors' networks, and our networks with them.

`golden_weights` redraws the weights that the golden numbers were computed
with; `assign` puts them into our networks, `write_pth` into a file as the
authors' code writes it.
"""

import collections
import json
import math
import pathlib
import zlib

import numpy as np

from transgan_tf.authors import discriminator_entries
from transgan_tf.authors import generator_entries
from transgan_tf.authors import relative_position_index
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage

GOLDEN = pathlib.Path(__file__).parent / "golden"


def load_case(name):
    """Returns the arrays and the decoded JSON entries of one golden case."""
    with np.load(GOLDEN / f"{name}_small.npz") as file:
        case = {key: file[key] for key in file.files}
    for key, value in case.items():
        if value.dtype.kind == "U":
            case[key] = json.loads(str(value))
    return case


def golden_weights(parameters):
    """Redraws the weights of `[name, shape]` pairs, float32."""
    return {name: _draw(name, tuple(shape)) for name, shape in parameters}


def _draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if "noise_strength" in name:
        values = np.zeros(shape)
    elif len(shape) == 1 and name.endswith("norm.weight"):
        values = 1 + 0.1 * rng.standard_normal(shape)
    elif len(shape) >= 2 and name.endswith("weight"):
        values = rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return np.asarray(values, "float32")


def network_configs(name, case):
    """Returns our configurations of a golden case's networks."""
    settings = case["config"]
    shapes = dict(case["generator_parameters"])
    latent_dim = shapes["l1.weight"][1]
    depths = [int(depth) for depth in settings["g_depth"].split(",")]
    width, side = settings["gf_dim"], settings["bottom_width"]
    norms = {"ln": "layer_norm", "pn": "token_scaling"}
    if name == "church256":
        kinds = [None, "bicubic", "bicubic"] + ["pixel_shuffle"] * 3
    else:
        kinds = [None, "pixel_shuffle", "pixel_shuffle"]
    stages = []
    for index, (kind, depth) in enumerate(zip(kinds, depths, strict=True)):
        width //= 4 if kind == "pixel_shuffle" else 1
        resolution = side * 2**index
        window = None if name == "church256" else resolution
        stages.append(Stage(resolution, width, depth, window, 0, kind))
    generator = GeneratorConfig(
        tuple(stages),
        norm=norms[settings["g_norm"]],
        attention_noise=name == "church256",
        latent_dim=latent_dim,
    )
    return generator, _discriminator_config(name, settings, norms)


def _discriminator_config(name, settings, norms):
    size, width = settings["img_size"], settings["df_dim"]
    depth, side = settings["d_depth"], settings["img_size"]
    side //= settings["patch_size"]
    if name == "church256":
        rows = (
            Stage(side, width * 3 // 4, depth, 16, 1),
            Stage(side // 2, width * 7 // 8, depth, side // 2),
            Stage(side // 4, width, depth + 1, side // 4),
        )
    else:
        rows = (
            Stage(side, width * 3 // 4, depth, side),
            Stage(side // 2, width, depth, side // 2),
        )
    return DiscriminatorConfig(
        rows,
        norm=norms[settings["d_norm"]],
        attention_noise=name != "church256",
        image_size=size,
    )


def assign(network, entries, weights):
    """Puts the authors' weights into ours; each is used exactly once.

    Args:
        network: built `Generator` or `Discriminator`.
        entries: what `transgan_tf.authors` says of it.
        weights: float32 by the authors' names, without buffers.

    Returns:
        Our paths by the authors' names.
    """
    variables = {
        v.path.partition("/")[2]: v for v in network.trainable_variables
    }
    matched = {e.name: e.path for e in entries if e.path is not None}
    assert matched.keys() == weights.keys()
    assert sorted(matched.values()) == sorted(variables)
    for entry in entries:
        if entry.path is not None:
            value = entry.to_ours(weights[entry.name])
            variables[entry.path].assign(value)
    return matched


def state_dicts(generator_config, discriminator_config):
    """Returns golden state dicts, with buffers, by their names in a file.

    The generator's weights before averaging are other ones.
    """
    average = _state_dict(generator_entries(generator_config))
    generator = {
        name: value + 1 if value.dtype == np.float32 else value
        for name, value in average.items()
    }
    return {
        "gen_state_dict": generator,
        "avg_gen_state_dict": average,
        "dis_state_dict": _state_dict(
            discriminator_entries(discriminator_config)
        ),
    }


def _state_dict(entries):
    return {entry.name: _value(entry) for entry in entries}


def _value(entry):
    if entry.path is None:
        return relative_position_index(entry.window)
    if "noise_strength" in entry.name:
        # Not the golden 0: each its own, so that none can stand for another.
        place = zlib.crc32(entry.name.encode()) % 9973
        return np.asarray(place / 9973, "float32")
    return _draw(entry.name, entry.shape)


def write_pth(path, states, prefix="module.", **more):
    """Writes state dicts, and more beside them, as the authors' code does."""
    import torch

    content = {
        key: collections.OrderedDict(
            (f"{prefix}{name}", torch.from_numpy(np.array(value)))
            for name, value in state.items()
        )
        for key, state in states.items()
    }
    torch.save(content | more, path)
    return path
