"""Parameters and memory of a configuration, by formula, without TensorFlow."""

from dataclasses import dataclass

from transgan_tf import resnet_estimate
from transgan_tf.configs import Config
from transgan_tf.network_configs import DiscriminatorConfig
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import NetworkConfig

# Bytes of a number.
_FLOAT32, _HALF = 4, 2

# What makes a run smaller, for a sentence.
SAVERS = (
    "--rematerialize, --set training.accumulation=N with "
    "training.generator_accumulation=N, or, in a run from the beginning, "
    "--precision=bfloat16 or a smaller --batch_size"
)

# Measured, see `training_memory`.
_XLA, _XLA_AGAIN, _NO_XLA = 1.45, 1.9, 1.8
_PASSES, _PASSES_AGAIN = 3, 2.5
_SCORES_NO_XLA = 12
_PROGRAM, _PROGRAM_NO_XLA = 900_000_000, 800_000_000
_BLOCK, _RESIDUAL_BLOCK, _BLOCK_NO_XLA = 65_000_000, 40_000_000, 15_000_000


def generator_parameters(config: GeneratorConfig) -> int:
    """Counts the trainable numbers of a configuration's generator."""
    if config.is_resnet:
        return resnet_estimate.generator_parameters(config)
    first, last = config.stages[0], config.stages[-1]
    count = _dense(config.latent_dim, first.resolution**2 * first.width)
    count += sum(_stage_parameters(config, stage) for stage in config.stages)
    return count + _dense(last.width, config.channels)


def discriminator_parameters(config: DiscriminatorConfig) -> int:
    """Counts the trainable numbers of a configuration's discriminator."""
    if config.is_resnet:
        return resnet_estimate.discriminator_parameters(config)
    count = 0
    for index, stage in enumerate(config.stages):
        if config.embedding_width(index):
            pixels = config.patch_size(index) ** 2 * config.channels
            count += _dense(pixels, config.embedding_width(index))
        count += _stage_parameters(config, stage)
    width = config.stages[-1].width
    count += width  # The CLS token, whose block has no relative position.
    count += _block_parameters(config, width)
    return count + _norm_parameters(config, width) + _dense(width, 1)


def _stage_parameters(config, stage):
    """A position embedding and the blocks."""
    count = stage.resolution**2 * stage.width
    count += stage.depth * _block_parameters(config, stage.width)
    if config.attention_of(stage) == "axis":
        count += stage.depth * _attention_parameters(stage.width)
    if config.relative_position:
        count += config.heads * sum(_table_rows(config, stage))
    return count


def _table_rows(config: NetworkConfig, stage):
    """Returns the rows of the relative position tables of each block."""
    side, kind = stage.resolution, config.attention_of(stage)
    if kind == "grid":
        return [(2 * window - 1) ** 2 for window in stage.block_windows()]
    rows = {
        "standard": (2 * side - 1) ** 2,
        "axis": 2 * (2 * side - 1),
        "nystrom": 0,
    }
    return [rows[kind]] * stage.depth


def _block_parameters(config: NetworkConfig, width):
    """Counts a block with one attention and without relative positions."""
    hidden = config.mlp_ratio * width
    count = _attention_parameters(width)
    count += _dense(width, hidden) + _dense(hidden, width)
    count += 2 * _norm_parameters(config, width)
    return count + config.attention_noise


def _attention_parameters(width):
    return 3 * width**2 + _dense(width, width)  # qkv has no bias


def _norm_parameters(config, width):
    return 2 * width if config.norm == "layer_norm" else 0


def _dense(inputs, units):
    return inputs * units + units


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes on one replica; see `training_memory`.

    Attributes:
        weights: networks, moving average, Adam's moments, gradients.
        discriminator, generator: activations of each one's update.
        activations: of both on a host under XLA, else of the larger one.
        program: TensorFlow and the compiled functions, in the host's memory.
    """

    weights: int
    discriminator: int
    generator: int
    activations: int
    program: int

    @property
    def on_device(self) -> int:
        """What a GPU needs, whose memory serves one update after the other."""
        return self.weights + max(self.discriminator, self.generator)

    @property
    def on_host(self) -> int:
        """What a device of the host needs, without the program."""
        return self.weights + self.activations

    @property
    def total(self) -> int:
        """What the process of one device of the host needs."""
        return self.on_host + self.program


def training_memory(config: Config, replicas: int = 1) -> MemoryEstimate:
    """Estimates the memory that training takes on one replica.

    Weights: 4 bytes for each number of both networks, of the generator's
    moving average and of Adam's two moments, whatever the precision; and
    gradients of the network at hand, twice with micro-batches.

    Activations: what one forward pass keeps for its gradient is, for each
    image, the tokens of a stage twice; in each block 8 + 2 * mlp_ratio numbers
    for each number of its tokens (5 more with axis attention), of 2 bytes in
    half precision; and the attention weights
    (`NetworkConfig.attention_scores`) in float32, in half precision a copy in
    that, too. Recomputed blocks keep their tokens once, and what is in the
    largest block is there one block at a time. The generator's update keeps a
    pass of both networks for each image of a micro-batch, the discriminator's
    three passes of its own network (of a recomputed block 2.5), two without a
    penalty. XLA lays out 1.45 times that, 1.9 times if recomputed, and keeps
    the room of both updates between steps, as resident memory shows. Without
    XLA it is 1.8 times, and a penalty's second derivative holds 12 tensors more
    as large as the attention weights of one block, those of the
    discriminator's largest. A ResNet's is counted by
    `transgan_tf.resnet_estimate.kept_bytes`.

    The program: TensorFlow, and each block's share of graph and machine code,
    twice if recomputed.

    `docs/memory.md` compares it with what was measured, which its constants
    were fitted to. A GPU took a quarter to a third less.

    Args:
        config: `Config`.
        replicas: number of devices that share the batch.

    Returns:
        `MemoryEstimate`.
    """
    generator = generator_parameters(config.generator)
    discriminator = discriminator_parameters(config.discriminator)
    # With micro-batches, those added up so far and those of the one at hand.
    gradients = max(
        generator * min(config.training.generator_accumulation, 2),
        discriminator * min(config.training.accumulation, 2),
    )
    numbers = 4 * generator + 3 * discriminator + gradients
    updates = _update_activations(config, replicas)
    together = sum if config.training.jit else max
    return MemoryEstimate(
        weights=numbers * _FLOAT32,
        **updates,
        activations=together(updates.values()),
        program=_program(config),
    )


def _program(config):
    jit = config.training.jit
    size = _PROGRAM if jit else _PROGRAM_NO_XLA
    for network in (config.generator, config.discriminator):
        block = _RESIDUAL_BLOCK if network.is_resnet else _BLOCK
        block = block if jit else _BLOCK_NO_XLA
        size += block * _traced_blocks(network, config)
    return size


def _traced_blocks(network, config):
    """Counts a network's blocks in both updates' graphs."""
    recomputed = config.rematerialized_stages()
    count = 0
    for stage in network.stages:
        times = 2 if network.stage_name(stage) in recomputed else 1
        count += times * stage.depth
    if network is config.discriminator and not network.is_resnet:
        count += times  # The CLS token's, of the last stage.
    return count


def _update_activations(config, replicas):
    """Returns the bytes of activations of each kind of update."""
    training = config.training
    drawn, judged = (
        _kept_bytes(network, config)
        for network in (config.generator, config.discriminator)
    )
    images = training.batch_size / replicas / training.accumulation
    made = training.generator_batch_size / replicas
    made /= training.generator_accumulation
    kept, again = judged
    penalized = training.loss != "hinge" and training.penalty_weight > 0
    passes, passes_again = (_PASSES, _PASSES_AGAIN) if penalized else (2, 1)
    discriminator = passes * kept + passes_again * again
    if penalized and not training.jit:
        discriminator += _SCORES_NO_XLA * _largest_scores(config.discriminator)
    generator = drawn[0] + kept + max(drawn[1], again)
    return {
        "discriminator": int(images * discriminator),
        "generator": int(made * generator),
    }


def _largest_scores(network):
    """Returns the bytes of one image's attention weights in one block."""
    scores = [
        s for row in network.stages for s in network.attention_scores(row)
    ]
    return _FLOAT32 * max(scores, default=0)


def _kept_bytes(network, config):
    """Returns the bytes of one image's forward pass that its gradient needs.

    Args:
        network: one of the configuration's networks.
        config: `Config`.

    Returns:
        What is kept all along, and what is made again for one block at a time,
        which is 0 if none is recomputed; both as they are laid out.
    """
    recomputed = config.rematerialized_stages()
    if network.is_resnet:
        jit = config.training.jit
        return resnet_estimate.kept_bytes(network, recomputed, jit)
    number = _FLOAT32 if config.training.precision == "float32" else _HALF
    # The softmax is float32; what is multiplied by it is not.
    attention = _FLOAT32 if number == _FLOAT32 else _FLOAT32 + _HALF
    kept, again = 0, 0
    for stage in network.stages:
        is_recomputed = network.stage_name(stage) in recomputed
        factor = _XLA_AGAIN if is_recomputed else _XLA
        factor = factor if config.training.jit else _NO_XLA
        tokens = factor * stage.resolution**2 * stage.width * number
        kept += 2 * tokens
        # The second of two attentions keeps its own.
        wide = 5 if network.attention_of(stage) == "axis" else 0
        for scores in network.attention_scores(stage):
            block = (8 + wide + 2 * network.mlp_ratio) * tokens
            block += factor * scores * attention
            if is_recomputed:
                kept += tokens
                again = max(again, block)
            else:
                kept += block
    return kept, again
