"""Memory of a training step: `python -m transgan_tf.benchmark_memory`."""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from transgan_tf import cli
from transgan_tf.checked import UserError
from transgan_tf.configs import Config
from transgan_tf.estimate import training_memory
from transgan_tf.presets import get_preset

CASES = {
    "plain": (),
    "bfloat16": ("training.precision=bfloat16",),
    "rematerialized": ("training.rematerialize=true",),
    "both": ("training.precision=bfloat16", "training.rematerialize=true"),
    "accumulated": (
        "training.accumulation=4",
        "training.generator_accumulation=4",
    ),
}
Case = Literal["plain", "bfloat16", "rematerialized", "both", "accumulated"]


@dataclass(frozen=True)
class Arguments:
    """Compare a training step's peak memory, each case in its own process.

    A step has one discriminator update here, since more take no more memory. It
    is the process's memory that is measured, not a GPU's.

    python -m transgan_tf.benchmark_memory --preset=celeba_128 --batch_size=4
    """

    preset: str = "celeba_128"
    """Whose networks and recipe."""
    batch_size: int = 4
    """Real images of one discriminator update."""
    cases: tuple[Case, ...] = tuple(CASES)
    """Which to measure; the first is what the others are compared with."""
    jit: bool = True
    """Whether XLA compiles the gradients."""

    def config(self, case: str) -> Config:
        changes = (
            f"training.batch_size={self.batch_size}",
            "training.n_critic=1",
            "training.accumulation=1",
            "training.generator_accumulation=1",
            f"training.jit={str(self.jit).lower()}",
        )
        config = get_preset(self.preset).config
        return config.override([*changes, *CASES[case]])


def resident(name="VmRSS") -> int:
    """Returns this process's bytes in memory, or at its peak (`VmHWM`)."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    raise UserError(f"/proc/self/status has no {name}: this needs Linux")


def reset_peak() -> None:
    """Lets the process's peak of memory begin again."""
    # The C library keeps what compiling has freed, which would hide a step.
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def reset_device_peak() -> None:
    """Lets the peak of what TensorFlow computes on begin again."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        tf.config.experimental.reset_memory_stats("GPU:0")
    else:
        reset_peak()


def device_peak() -> int:
    """Returns the bytes that were taken at the peak of the first GPU.

    Without one, the process's (`VmHWM`).
    """
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return resident("VmHWM")


def cost_of_runs(run: Callable, x, rounds: int) -> dict:
    """Runs a function of one tensor, after once that does not count.

    Returns:
        `bytes` at the peak above those before its first run, what compiling
        has left among them; `seconds` of a run, the median.
    """
    import tensorflow as tf

    # XLA keeps its room between runs: what is there after one is no base.
    base = resident()
    run(x)
    reset_peak()  # That of compiling must not count.
    times = []
    for _ in range(rounds):
        start = time.monotonic()
        tf.nest.flatten(run(x))[0].numpy()
        times.append(time.monotonic() - start)
    peak = resident("VmHWM") - base
    return {"bytes": peak, "seconds": statistics.median(times)}


def measure(config: Config) -> dict:
    """Makes two steps of noise in this process.

    Returns:
        Bytes of memory with TensorFlow imported (`base`), at the peak of
        making the model and of the first step, which compiles (`first`), and
        of the second (`second`), whose seconds are `seconds`.
    """
    import tensorflow as tf

    from transgan_tf.gan import make_gan

    base = resident()
    gan = make_gan(config)
    step = tf.function(gan.train_step, autograph=False)
    size, channels = config.generator.image_size, config.generator.channels
    shape = (config.training.images_per_step, size, size, channels)
    images = tf.tanh(tf.random.stateless_normal(shape, (1, 2)))
    step(images)
    first = resident("VmHWM")
    reset_peak()
    start = time.monotonic()
    step(images)["generator_loss"].numpy()
    seconds = time.monotonic() - start
    second = resident("VmHWM")
    peaks = {"base": base, "first": first, "second": second}
    return peaks | {"seconds": seconds}


def measure_apart(config: Config) -> dict:
    """Returns what `measure` does in a process of its own.

    Raises:
        UserError: the process failed, or was killed for its memory.
    """
    code = (
        "import sys; from transgan_tf import benchmark_memory; "
        "benchmark_memory.measure_and_print(sys.stdin.read())"
    )
    return json.loads(run_apart(code, config.to_json()).splitlines()[-1])


def run_apart(code: str, text: str, **environment: str) -> str:
    """Runs Python code on a text in a process of its own; returns its output.

    Raises:
        UserError: the process failed, or was killed for its memory.
    """
    process = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the measuring process ended with {process.returncode}: {last}"
        )
    return process.stdout


def measure_and_print(text: str) -> None:
    cli.import_tensorflow_quietly()
    print(json.dumps(measure(Config.from_json(text))))


def act(arguments: Arguments) -> int:
    """Prints a row for each case, with its ratio to the first."""
    print(
        f"{arguments.preset}, batch {arguments.batch_size}; GiB above the "
        "process with TensorFlow imported\n"
        "| case | step | of the first | with compiling | estimate | seconds |\n"
        "|---|---|---|---|---|---|"
    )
    first = None
    for case in arguments.cases:
        config = arguments.config(case)
        seen = measure_apart(config)
        base = seen["base"]
        step = seen["second"] - base
        first = first or step
        estimate = training_memory(config).total
        print(
            f"| {case} | {step / 2**30:.2f} | {step / first:.2f} "
            f"| {(seen['first'] - base) / 2**30:.2f} "
            f"| {estimate / 2**30:.2f} | {seen['seconds']:.1f} |",
            flush=True,
        )
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_memory"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
