"""How fast a preset trains and samples: `python -m transgan_tf.benchmark`."""

import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf import cli
from transgan_tf.benchmark_memory import device_peak
from transgan_tf.benchmark_memory import reset_device_peak
from transgan_tf.checked import ConfigError
from transgan_tf.checked import require
from transgan_tf.configs import PRECISIONS
from transgan_tf.configs import Config
from transgan_tf.estimate import discriminator_parameters
from transgan_tf.estimate import generator_parameters
from transgan_tf.flops import step_flops
from transgan_tf.network_configs import ATTENTIONS
from transgan_tf.presets import get_preset

# Side of the square matrices whose product is the machine's peak.
MATMUL_SIZE = 3072
PARTS = ("sampling", "discriminator", "generator", "step")


@dataclass(frozen=True)
class Arguments:
    """Measure the parts of a preset's training step on random images.

    All parts are run in turn, and the medians of the rounds are told, beside
    the arithmetic that the algorithm takes and the share that this is of what
    the machine reaches in the product of two large matrices.

    python -m transgan_tf.benchmark --dataset=cifar10 --batch_size=16
    """

    dataset: str = "mnist"
    """Preset whose networks and recipe are measured."""
    batch_size: int | None = None
    """Real images of one discriminator update; the preset's by default."""
    attention: Literal[ATTENTIONS] | None = None
    """How both networks' stages of high resolution attend."""
    precision: Literal[PRECISIONS] | None = None
    """Type of the matrix multiplications."""
    jit: bool = True
    """Whether XLA compiles."""
    rounds: int = 5
    """How often each part is timed, after once that does not count."""
    parts: tuple[Literal[PARTS], ...] = PARTS
    """Which to measure."""
    json: bool = False
    """Print JSON instead of a table."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of the configuration."""

    def config(self) -> Config:
        changes = [
            f"training.{name}={getattr(self, name)}"
            for name in ("batch_size", "precision")
            if getattr(self, name) is not None
        ]
        changes.append(f"training.jit={self.jit}")
        if self.attention is not None:
            changes += [
                f"{network}.attention={self.attention}"
                for network in ("generator", "discriminator")
            ]
        config = get_preset(self.dataset).config
        config = config.override([*changes, *self.assignments])
        if self.attention is not None:
            check_attention(config, self.attention)
        return config


def check_attention(config: Config, attention: str) -> None:
    """Raises `ConfigError` if no stage of the networks attends so."""
    networks = (config.generator, config.discriminator)
    kinds = {n.attention_of(stage) for n in networks for stage in n.stages}
    if attention not in kinds:
        raise ConfigError(
            f"--attention={attention} changes no stage of {config.preset}, "
            "since none is above attention_above: lower it by --set "
            "generator.attention_above=8 --set discriminator.attention_above=8"
        )


def act(arguments: Arguments) -> int:
    """Measures, and prints what was seen."""
    config, rounds = arguments.config(), arguments.rounds
    require(rounds >= 1, "--rounds", "must be positive", rounds)
    report = measure(config, rounds, arguments.parts)
    report = {"dataset": arguments.dataset, **describe(config), **report}
    print(json.dumps(report, indent=2) if arguments.json else table(report))
    return cli.DONE


def describe(config: Config) -> dict:
    """Returns what is measured."""
    training = config.training
    return {
        "batch_size": training.batch_size,
        "generator_batch_size": training.generator_batch_size,
        "n_critic": training.n_critic,
        "attention": config.generator.attention,
        "precision": training.precision,
        "jit": training.jit,
        "generator_parameters": generator_parameters(config.generator),
        "discriminator_parameters": discriminator_parameters(
            config.discriminator
        ),
    }


def measure(config: Config, rounds: int, names=PARTS) -> dict:
    """Times the parts of a step, one after another, `rounds` times.

    Returns:
        `matmul_flops` per second; `peak_memory` in bytes, without compiling,
        of the GPU, or else the process; for each of the `parts` `seconds`,
        `flops`, the `peak_share` of the matmul's, and `images_per_second`:
        those that it makes or, if it judges some, real ones.
    """
    arithmetic = dataclasses.asdict(step_flops(config))
    timed = {"matmul": matmul(config.training.precision)}
    everything = make_parts(config)
    timed |= {name: everything[name] for name in names}
    for part in timed.values():
        part()
    reset_device_peak()
    seconds = {name: [] for name in timed}
    for _ in range(rounds):
        for name, part in timed.items():
            start = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(all_) for name, all_ in seconds.items()}
    reached = 2 * MATMUL_SIZE**3 / medians.pop("matmul")
    report = {"matmul_flops": reached, "peak_memory": device_peak()}
    report["parts"] = {
        name: {
            "seconds": taken,
            "flops": arithmetic[name],
            "peak_share": arithmetic[name] / taken / reached,
            "images_per_second": images_of(config, name) / taken,
        }
        for name, taken in medians.items()
    }
    return report


def images_of(config: Config, part: str) -> int:
    """Returns how many images a part is about, see `measure`."""
    training = config.training
    return {
        "sampling": training.batch_size,
        "discriminator": training.batch_size,
        "generator": training.generator_batch_size,
        "step": training.images_per_step,
    }[part]


def matmul(precision: str) -> Callable[[], None]:
    """Returns a function that multiplies two large matrices."""
    import tensorflow as tf

    shape = (MATMUL_SIZE, MATMUL_SIZE)
    one, other = (
        tf.cast(tf.random.stateless_normal(shape, (seed, 0)), precision)
        for seed in range(2)
    )
    return lambda: tf.matmul(one, other)[0, 0].numpy()


def make_parts(config: Config) -> dict[str, Callable[[], None]]:
    """Returns functions that run each part of a step and wait for its end.

    Operations are deterministic, as in training.
    """
    import tensorflow as tf

    from transgan_tf.gan import make_gan
    from transgan_tf.randomness import root_seed
    from transgan_tf.training import make_exact

    make_exact(seed=0)
    training, seed = config.training, root_seed(0)
    gan = make_gan(config)
    size, channels = config.generator.image_size, config.generator.channels
    shape = (training.images_per_step, size, size, channels)
    images = tf.tanh(tf.random.stateless_normal(shape, (1, 2)))
    some = images[: training.batch_size]
    shape = (training.batch_size, gan.latent_dim)
    latents = tf.random.stateless_normal(shape, (3, 4))
    made = training.generator_batch_size

    def waiting(function, *inputs, jit=False):
        graph = tf.function(function, jit_compile=jit, autograph=False)
        return lambda: tf.nest.flatten(graph(*inputs))[0].numpy()

    def update_generator(seed):
        return gan._update_generator(made, seed)

    return {
        "sampling": waiting(gan.generator, latents, jit=training.jit),
        "discriminator": waiting(gan._update_discriminator, some, seed),
        "generator": waiting(update_generator, seed),
        "step": waiting(gan.train_step, images),
    }


def table(report: dict) -> str:
    """Returns a report as Markdown."""
    titles = {
        "sampling": f"generator forward, {report['batch_size']} images",
        "discriminator": f"discriminator update, {report['batch_size']} images",
        "generator": "generator update, "
        f"{report['generator_batch_size']} images",
        "step": f"training step: {report['n_critic']} of the one, then the "
        "other",
    }
    lines = [
        f"{report['dataset']}, {report['precision']}, "
        f"{report['attention']} attention, "
        f"{'with' if report['jit'] else 'without'} XLA: "
        f"{report['generator_parameters']:,} + "
        f"{report['discriminator_parameters']:,} parameters",
        "",
        "| part | seconds | GFLOP | of the matmul's peak | images/s |",
        "|---|---|---|---|---|",
    ]
    for name, part in report["parts"].items():
        lines.append(
            f"| {titles[name]} | {part['seconds']:.3g} "
            f"| {part['flops'] / 1e9:,.4g} | {part['peak_share']:.2f} "
            f"| {part['images_per_second']:.3g} |"
        )
    lines += [
        "",
        f"The product of two matrices of side {MATMUL_SIZE}: "
        f"{report['matmul_flops'] / 1e9:.0f} GFLOP/s. "
        f"Peak memory: {report['peak_memory'] / 2**30:.2f} GiB.",
    ]
    return "\n".join(lines)


def main(argv=None) -> int:
    return cli.run(Arguments, act, "python -m transgan_tf.benchmark", argv)


if __name__ == "__main__":
    sys.exit(main())
