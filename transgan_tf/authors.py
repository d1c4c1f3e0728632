"""The authors' PyTorch networks: the names and the order of their tensors.

Their state dicts name each weight by its module, store linear weights as
(out, in), convolutions as (out, in, kh, kw), and keep the rows of relative
position tables as a buffer of each attention. This module says which of our
weights each one is. It imports neither TensorFlow nor PyTorch.

Reference:
    https://github.com/VITA-Group/TransGAN, `models_search/`: the generators
    `ViT_custom_rp.py` (CIFAR-10, STL-10) and
    `ViT_custom_local544444_256_rp_noise.py` (LSUN Church), the discriminators
    `ViT_custom_scale2_rp_noise.py` and `ViT_scale3_local_new_rp.py`.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from transgan_tf.checked import ConfigError
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import NetworkConfig

# Buffers of the discriminators' augmentation, there with some policies; no
# weights.
AUGMENTATION_BUFFERS = ("Hz_fbank", "Hz_geom")

# Parts of names that only the CelebA-HQ generator has: it attends to an
# embedding of the latent in every block.
_CELEBA_HQ = ("embedding_transform.", "embed_pos", ".cross_attention.")

# A 1 x 1 convolution to RGB, which is a Dense layer here.
_OUTPUT = "deconv.0.weight"

_OURS = "cifar10, stl10 and lsun_church have networks of the authors"
# What is fixed in the authors' code, by number of stages; the rest is free.
_SHARED = {"channels": 3, "heads": 4, "relative_position": True}
_GENERATORS = {
    3: _SHARED
    | {"attention_noise": False, "output_activation": "linear"}
    | {f"stages.{n}.upsample": "pixel_shuffle" for n in (1, 2)}
    | {f"stages.{n}.global_blocks": 0 for n in range(3)},
    6: _SHARED
    | {"attention_noise": True, "output_activation": "linear"}
    | {f"stages.{n}.upsample": "bicubic" for n in (1, 2)}
    | {f"stages.{n}.upsample": "pixel_shuffle" for n in (3, 4, 5)}
    | {f"stages.{n}.window": 8 * 2**n for n in range(3)}
    | {f"stages.{n}.global_blocks": 0 for n in range(6)},
}
_DISCRIMINATORS = {
    2: _SHARED
    | {"mlp_ratio": 4, "attention_noise": True}
    | {f"stages.{n}.global_blocks": 0 for n in range(2)},
    3: _SHARED
    | {"mlp_ratio": 4, "attention_noise": False}
    | {f"stages.{n}.global_blocks": int(n == 0) for n in range(3)}
    | {f"stages.{n}.resolution": 64 // 2**n for n in range(3)}
    | {f"stages.{n}.window": 64 // 2**n for n in (1, 2)},
}


@dataclass(frozen=True)
class Entry:
    """A tensor of an authors' state dict.

    Attributes:
        name: theirs, without `module.`.
        shape: theirs.
        path: of our weight within the network; None for the buffer
            `relative_position_index`.
        window: side of the attention's window, for that buffer.
    """

    name: str
    shape: tuple[int, ...]
    path: str | None
    window: int | None = None

    @property
    def our_shape(self) -> tuple[int, ...]:
        """Shape of our weight; see `to_ours`."""
        if self._is_output:
            return self.shape[1::-1]
        return tuple(self.shape[axis] for axis in self._axes)

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Turns a tensor of theirs into our weight: (..., in, out)."""
        return value.transpose(self._axes).reshape(self.our_shape)

    def to_theirs(self, value: np.ndarray) -> np.ndarray:
        """The reverse of `to_ours`."""
        shape = tuple(self.shape[axis] for axis in self._axes)
        return value.reshape(shape).transpose(np.argsort(self._axes))

    @property
    def _axes(self):
        """Their axes in our order."""
        axes = tuple(range(len(self.shape)))
        if self.name.endswith(".weight") and len(axes) > 1:
            return (*axes[2:], 1, 0)
        return axes

    @property
    def _is_output(self):
        return self.name == _OUTPUT


@functools.lru_cache(1)
def relative_position_index(window: int) -> np.ndarray:
    """Returns the authors' buffer: `(w*w, w*w)` int64 rows of a table.

    Row `(dy + w-1) * (2w-1) + (dx + w-1)` with dy = query row - key row and dx
    likewise for columns, as `transgan_tf.layers.position` has it. The last one
    is kept: read only.
    """
    places = np.arange(window)
    steps = places[:, None] - places + window - 1  # (w, w)
    rows = (steps * (2 * window - 1))[:, None, :, None]
    index = (rows + steps[:, None]).reshape(window**2, window**2)
    index.flags.writeable = False
    return index


def is_celeba_hq(names) -> bool:
    """Tells whether names are those of the authors' CelebA-HQ generator."""
    return any(part in name for name in names for part in _CELEBA_HQ)


def generator_entries(config: GeneratorConfig) -> tuple[Entry, ...]:
    """Returns the tensors of the authors' generator, in their order.

    Raises:
        ConfigError: the authors have no such generator.
    """
    _check(config, _GENERATORS)
    if len(config.stages) == 3:
        _check_global(config)
    return tuple(_generator(config))


def discriminator_entries(config: DiscriminatorConfig) -> tuple[Entry, ...]:
    """Returns the tensors of the authors' discriminator, in their order.

    Raises:
        ConfigError: the authors have no such discriminator.
    """
    _check(config, _DISCRIMINATORS)
    if len(config.stages) == 2:
        _check_global(config)
        _require(config, "image_size", 2 * config.stages[0].resolution)
    width, depth = config.stages[-1].width, config.stages[0].depth
    shares = {2: (6, 8), 3: (6, 7, 8)}[len(config.stages)]
    for number, share in enumerate(shares):
        _require(config, f"stages.{number}.width", width * share // 8)
        # The third scale has a block more.
        _require(config, f"stages.{number}.depth", depth + (number == 2))
    return tuple(_discriminator(config))


def _check(config, layouts):
    layout = layouts.get(len(config.stages))
    if layout is None:
        raise ConfigError(
            f"the authors have no {config.prefix} of {len(config.stages)} "
            f"stages: {_OURS}"
        )
    for field, value in layout.items():
        _require(config, field, value)
    # Where no stage is above `attention_above`, the field changes nothing.
    if any(config.attention_of(stage) != "grid" for stage in config.stages):
        _require(config, "attention", "grid")


def _check_global(config):
    """All attention is over the whole map."""
    for number, stage in enumerate(config.stages):
        _require(config, f"stages.{number}.window", stage.resolution)


def _require(config, field, value):
    got = config
    for name in field.split("."):
        got = got[int(name)] if name.isdecimal() else getattr(got, name)
    if got != value:
        raise ConfigError(
            f"the authors have no network with {config.prefix}.{field}={got}, "
            f"where theirs has {value}: {_OURS}"
        )


def _generator(config) -> Iterator[Entry]:
    stages, first = config.stages, config.stages[0]
    yield from _positions(config)
    units = first.resolution**2 * first.width
    yield from _linear("l1", "from_latent", config.latent_dim, units)
    for index in range(len(stages)):
        if len(stages) == 6:
            prefix = f"blocks_{index + 1}.block"
        elif index == 0:
            prefix = "blocks.block"
        else:
            prefix = f"upsample_blocks.{index - 1}.block"
        # The Church generator declares its noise after the table.
        order = ("table", "noise")
        yield from _blocks(config, index, prefix, order)
    width = stages[-1].width
    shape = (config.channels, width, 1, 1)
    yield Entry(_OUTPUT, shape, "to_image/kernel")
    yield Entry("deconv.0.bias", (config.channels,), "to_image/bias")


def _discriminator(config) -> Iterator[Entry]:
    stages, width = config.stages, config.stages[-1].width
    yield Entry("cls_token", (1, 1, width), "class_token/token")
    yield from _positions(config)
    for index in range(len(stages)):
        name, path = f"fRGB_{index + 1}", f"stage_{index}/patches"
        side, units = config.patch_size(index), config.embedding_width(index)
        shape = (units, config.channels, side, side)
        yield Entry(f"{name}.weight", shape, f"{path}/kernel")
        yield Entry(f"{name}.bias", (units,), f"{path}/bias")
    order = ("noise", "table")
    for index in range(len(stages)):
        yield from _blocks(config, index, f"blocks_{index + 1}", order)
    yield from _block(config, "last_block.0", "class_block", width, order)
    yield from _norm(config, "norm", "norm", width)
    yield from _linear("head", "head", width, 1)


def _positions(config):
    for index, stage in enumerate(config.stages):
        shape = (1, stage.resolution**2, stage.width)
        path = f"stage_{index}/position/embedding"
        yield Entry(f"pos_embed_{index + 1}", shape, path)


def _blocks(config, index, prefix, order):
    """The blocks of a stage; the global ones are apart, as `blocks_11`."""
    stage = config.stages[index]
    local = stage.depth - stage.global_blocks
    for number, window in enumerate(stage.block_windows()):
        name = f"{prefix}.{number}"
        if number >= local:
            name = f"{prefix}1.{number - local}"
        path = f"stage_{index}/block_{number}"
        yield from _block(config, name, path, stage.width, order, window)


def _block(config, name, path, width, order, window=None):
    yield from _norm(config, f"{name}.norm1", f"{path}/norm_1", width)
    yield from _attention(config, name, path, width, order, window)
    yield from _norm(config, f"{name}.norm2", f"{path}/norm_2", width)
    hidden = config.mlp_ratio * width
    yield from _linear(f"{name}.mlp.fc1", f"{path}/mlp_1", width, hidden)
    yield from _linear(f"{name}.mlp.fc2", f"{path}/mlp_2", hidden, width)


def _attention(config, block, block_path, width, order, window):
    """Of the block of the CLS token (no window) without relative positions."""
    name, path = f"{block}.attn", f"{block_path}/attention"
    own = {}
    if config.attention_noise:
        strength = f"{block_path}/noise/strength"
        own["noise"] = Entry(f"{name}.noise_strength_1", (), strength)
    if window is not None:
        path = f"{path}/attention"
        shape = ((2 * window - 1) ** 2, config.heads)
        table = f"{path}/relative_position/table"
        own["table"] = Entry(
            f"{name}.relative_position_bias_table", shape, table
        )
    yield from (own[kind] for kind in order if kind in own)
    if window is not None:
        # PyTorch lists a module's buffers after its parameters.
        shape = (window**2, window**2)
        yield Entry(f"{name}.relative_position_index", shape, None, window)
    shape = (3 * width, width)
    yield Entry(f"{name}.qkv.weight", shape, f"{path}/qkv/kernel")
    yield from _linear(f"{name}.proj", f"{path}/projection", width, width)


def _norm(config: NetworkConfig, name, path, width):
    if config.norm == "layer_norm":
        yield Entry(f"{name}.norm.weight", (width,), f"{path}/gamma")
        yield Entry(f"{name}.norm.bias", (width,), f"{path}/beta")


def _linear(name, path, inputs, units):
    yield Entry(f"{name}.weight", (units, inputs), f"{path}/kernel")
    yield Entry(f"{name}.bias", (units,), f"{path}/bias")
