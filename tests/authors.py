"""The authors' parameter names, and golden weights drawn from them.

`golden_weights` redraws the weights that the golden numbers were computed
with; `assign` puts a PyTorch-style state dict into our networks.
"""

import json
import math
import pathlib
import zlib

import numpy as np

from transgan_tf.configs import DiscriminatorConfig
from transgan_tf.configs import GeneratorConfig
from transgan_tf.configs import Stage

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


def generator_names(config, church):
    """Yields (authors' name, our weight's path) for a generator."""
    yield from _pairs("l1", "from_latent")
    for index, stage in enumerate(config.stages):
        yield f"pos_embed_{index + 1}", f"stage_{index}/position/embedding"
        if church:
            prefix = f"blocks_{index + 1}.block"
        elif index == 0:
            prefix = "blocks.block"
        else:
            prefix = f"upsample_blocks.{index - 1}.block"
        for number in range(stage.depth):
            ours = f"stage_{index}/block_{number}"
            yield from _block_names(f"{prefix}.{number}", ours)
    yield from _pairs("deconv.0", "to_image")


def discriminator_names(config, church):
    """Yields (authors' name, our weight's path) for a discriminator."""
    yield "cls_token", "class_token/token"
    for index, stage in enumerate(config.stages):
        name = f"stage_{index}"
        yield f"pos_embed_{index + 1}", f"{name}/position/embedding"
        yield from _pairs(f"fRGB_{index + 1}", f"{name}/patches")
        for number in range(stage.depth):
            prefix = f"blocks_{index + 1}.{number}"
            if church and index == 0 and number == stage.depth - 1:
                prefix = "blocks_11.0"
            yield from _block_names(prefix, f"{name}/block_{number}")
    yield from _block_names("last_block.0", "class_block")
    yield "norm.norm.weight", "norm/gamma"
    yield "norm.norm.bias", "norm/beta"
    yield from _pairs("head", "head")


def _pairs(theirs, ours):
    yield f"{theirs}.weight", f"{ours}/kernel"
    yield f"{theirs}.bias", f"{ours}/bias"


def _block_names(theirs, ours):
    for number in (1, 2):
        norm = f"{theirs}.norm{number}.norm"
        yield f"{norm}.weight", f"{ours}/norm_{number}/gamma"
        yield f"{norm}.bias", f"{ours}/norm_{number}/beta"
        yield from _pairs(f"{theirs}.mlp.fc{number}", f"{ours}/mlp_{number}")
    yield f"{theirs}.attn.noise_strength_1", f"{ours}/noise/strength"
    for attention in (f"{ours}/attention", f"{ours}/attention/attention"):
        table = f"{attention}/relative_position/table"
        yield f"{theirs}.attn.relative_position_bias_table", table
        yield f"{theirs}.attn.qkv.weight", f"{attention}/qkv/kernel"
        yield from _pairs(f"{theirs}.attn.proj", f"{attention}/projection")


def to_ours(value):
    """Transposes a PyTorch weight: (out, in, ...) to (..., in, out)."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


def assign(network, names, weights):
    """Puts the authors' weights into ours; each is used exactly once."""
    variables = {
        v.path.partition("/")[2]: v for v in network.trainable_variables
    }
    matched = {}
    for theirs, ours in names:
        if theirs not in weights or ours not in variables:
            continue
        value = weights[theirs]
        if theirs == "deconv.0.weight":
            value = value[:, :, 0, 0]
        is_table = "position_bias_table" in theirs or theirs.startswith("pos")
        value = value if is_table else to_ours(value)
        variables.pop(ours).assign(value)
        matched[theirs] = ours
    missing = set(weights) - set(matched)
    if missing or variables:
        raise AssertionError(f"left over: {missing} and {set(variables)}")
    return matched
