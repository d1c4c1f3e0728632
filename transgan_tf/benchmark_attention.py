"""What attention costs: `python -m transgan_tf.benchmark_attention`."""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transgan_tf import cli
from transgan_tf.benchmark_memory import cost_of_runs
from transgan_tf.benchmark_memory import run_apart
from transgan_tf.checked import UserError
from transgan_tf.checked import from_dict
from transgan_tf.checked import require
from transgan_tf.network_configs import ATTENTIONS
from transgan_tf.network_configs import GeneratorConfig
from transgan_tf.network_configs import Stage

# Of the scores, their exponentials and the gradient: what is there at once.
_COPIES = 3


@dataclass(frozen=True)
class Arguments:
    """Measure memory and time of attentions over resolutions (Figure 8).

    Each is one attention of one image, its forward pass and its gradient, in a
    process of its own. It is the process's memory that is measured, not a
    GPU's, and what would not fit into it is left out.

    python -m transgan_tf.benchmark_attention --output=attention.png
    """

    attentions: tuple[Literal[ATTENTIONS], ...] = ("standard", "grid")
    """Which to compare."""
    resolutions: tuple[int, ...] = (32, 64, 128, 256)
    """Sides of the map in tokens."""
    width: int = 64
    """Channels of a token."""
    heads: int = 4
    """Attention heads."""
    window: int = 16
    """Side of the windows of grid."""
    jit: bool = True
    """Whether XLA compiles it, as in training."""
    output: Path = Path("attention.png")
    """File of the plot (.png or .svg)."""

    def config(self, attention: str, resolution: int) -> GeneratorConfig:
        stage = Stage(resolution, self.width, 1, self.window)
        return GeneratorConfig(
            (stage,),
            heads=self.heads,
            relative_position=False,
            attention=attention,
            attention_above=0,
        )


def act(arguments: Arguments) -> int:
    """Prints a row for each attention and resolution, and draws them."""
    from transgan_tf.memory import host_memory

    suffix = arguments.output.suffix
    known = suffix in (".png", ".svg")
    require(known, "--output", "must name a .png or .svg", suffix)
    cases = [
        (attention, resolution, arguments.config(attention, resolution))
        for attention in arguments.attentions
        for resolution in arguments.resolutions
    ]
    available = host_memory()
    print("| attention | map | MiB | ms |\n|---|---|---|---|")
    results = []
    for attention, resolution, config in cases:
        name = f"| {attention} | {resolution} x {resolution} "
        needed = _COPIES * 4 * sum(config.attention_scores(config.stages[0]))
        if available is not None and needed > available:
            size = f"{needed / 2**30:,.1f} GiB"
            print(f"{name}| does not fit: about {size} | |", flush=True)
            continue
        try:
            seen = measure_apart(config, arguments.jit)
        except UserError as error:
            # The other cases are measured all the same.
            print(f"{name}| not measured: {error} | |", flush=True)
            continue
        results.append({"attention": attention, "side": resolution, **seen})
        mebibytes, milliseconds = seen["bytes"] / 2**20, 1000 * seen["seconds"]
        print(f"{name}| {mebibytes:,.0f} | {milliseconds:,.1f} |", flush=True)
    draw(results, arguments.output)
    print(arguments.output)
    return cli.DONE


def measure_apart(config: GeneratorConfig, jit: bool) -> dict:
    """Returns what `measure` does in a process of its own.

    Raises:
        UserError: the process failed, or was killed for its memory.
    """
    code = (
        "import sys; from transgan_tf import benchmark_attention; "
        "benchmark_attention.measure_and_print(sys.stdin.read())"
    )
    text = json.dumps([dataclasses.asdict(config), jit])
    return json.loads(run_apart(code, text).splitlines()[-1])


def measure_and_print(text: str) -> None:
    cli.import_tensorflow_quietly()
    values, jit = json.loads(text)
    print(json.dumps(measure(from_dict(GeneratorConfig, values), jit)))


def measure(config: GeneratorConfig, jit: bool) -> dict:
    """Runs the attention of a configuration's one block in this process.

    Returns:
        `bytes` at the peak of a run above those before it was compiled, the
        compiled program's own (some 70 MiB under XLA) among them;
        `seconds` of a run, the median of three.
    """
    import tensorflow as tf

    from transgan_tf.layers.block import make_blocks

    (stage,) = config.stages
    (block,) = make_blocks(config, stage, "fan_in_uniform", "float32")
    shape = (1, stage.resolution**2, stage.width)
    block.attention.build(shape)
    weights = [weight.value for weight in block.attention.weights]

    @tf.function(jit_compile=jit, autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch([x, *weights])
            y, _ = block.attention.stateless_call(weights, [], x)
            loss = tf.reduce_sum(y**2)
        return tape.gradient(loss, [x, *weights])

    x = tf.random.stateless_normal(shape, (1, 2))
    return cost_of_runs(run, x, rounds=3)


def draw(results: list[dict], path) -> None:
    """Draws memory and time over the map's side, both logarithmic.

    Args:
        results: `attention`, `side`, `bytes` and `seconds` of each.
        path: file to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    kinds = list(dict.fromkeys(result["attention"] for result in results))
    units = (("bytes", 2**20, "MiB"), ("seconds", 1e-3, "milliseconds"))
    for panel, (name, unit, label) in zip(panels, units, strict=True):
        for kind in kinds:
            points = [
                (result["side"], result[name] / unit)
                for result in results
                if result["attention"] == kind
            ]
            panel.plot(*zip(*points, strict=True), marker="o", label=kind)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xlabel("side of the map in tokens")
        panel.set_ylabel(label)
        panel.grid(alpha=0.3)
    panels[0].legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_attention"
    return cli.run(Arguments, act, command, argv)


if __name__ == "__main__":
    sys.exit(main())
