"""Cost of growing images: `python -m transgan_tf.benchmark_growth`."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from typing import Annotated

import tyro

from transgan_tf import cli
from transgan_tf.benchmark_memory import cost_of_runs
from transgan_tf.benchmark_memory import run_apart
from transgan_tf.checked import from_dict
from transgan_tf.checked import require
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.presets import get_preset


@dataclass(frozen=True)
class Arguments:
    """Measure time and memory of a preset's generator, cut at each resolution.

    Each is a forward pass of one image through the stages up to that
    resolution, in a process of its own. It is the process's memory that is
    measured, not a GPU's, and weights are not counted.

    python -m transgan_tf.benchmark_growth --preset=celeba_hq
    """

    preset: str = "celeba_hq"
    """Whose generator."""
    least: int = 32
    """Side of the smallest images in pixels."""
    jit: bool = True
    """Whether XLA compiles it."""
    rounds: int = 5
    """How often each is timed, after once that does not count."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of the configuration, such as
    generator.attention=standard."""

    def cases(self) -> list[GeneratorConfig]:
        """Returns the generator cut after each of its larger resolutions."""
        config = get_preset(self.preset).config.override(self.assignments)
        stages = config.generator.stages
        return [
            dataclasses.replace(config.generator, stages=stages[: number + 1])
            for number, stage in enumerate(stages)
            if stage.resolution >= self.least
        ]


def act(arguments: Arguments) -> int:
    """Prints a row for each resolution, with its ratio to the one before."""
    rounds = arguments.rounds
    require(rounds >= 1, "--rounds", "must be positive", rounds)
    print(
        "| image | ms | of the one before | MiB | of the one before |\n"
        "|---|---|---|---|---|"
    )
    before = None
    for config in arguments.cases():
        seen = measure_apart(config, arguments.jit, rounds)
        ratios = dict.fromkeys(seen, "")
        if before is not None:
            ratios = {name: f"{seen[name] / before[name]:.2f}" for name in seen}
        side = config.image_size
        print(
            f"| {side} x {side} | {1000 * seen['seconds']:,.0f} "
            f"| {ratios['seconds']} | {seen['bytes'] / 2**20:,.0f} "
            f"| {ratios['bytes']} |",
            flush=True,
        )
        before = seen
    return cli.DONE


def measure_apart(config: GeneratorConfig, jit: bool, rounds: int) -> dict:
    """Returns what `measure` does in a process of its own.

    Raises:
        UserError: the process failed, or was killed for its memory.
    """
    code = (
        "import sys; from transgan_tf import benchmark_growth; "
        "benchmark_growth.measure_and_print(sys.stdin.read())"
    )
    text = json.dumps([dataclasses.asdict(config), jit, rounds])
    return json.loads(run_apart(code, text).splitlines()[-1])


def measure_and_print(text: str) -> None:
    cli.import_tensorflow_quietly()
    values, jit, rounds = json.loads(text)
    config = from_dict(GeneratorConfig, values)
    print(json.dumps(measure(config, jit, rounds)))


def measure(config: GeneratorConfig, jit: bool, rounds: int) -> dict:
    """Runs a generator on one latent in this process.

    Returns:
        `bytes` at the peak of a run above those with the generator built, the
        compiled program's own among them; `seconds` of a run, the median.
    """
    import tensorflow as tf

    from transgan_tf.networks import make_generator

    generator = make_generator(config)
    generator.build((None, config.latent_dim))
    weights = [weight.value for weight in generator.variables]

    @tf.function(jit_compile=jit, autograph=False)
    def run(latents):
        return generator.stateless_call(weights, [], latents)[0]

    latents = tf.random.stateless_normal((1, config.latent_dim), (1, 2))
    return cost_of_runs(run, latents, rounds)


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_growth"
    return cli.run(Arguments, act, command, argv)


if __name__ == "__main__":
    sys.exit(main())
