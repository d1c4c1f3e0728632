"""What a second device costs: `python -m transgan_tf.benchmark_replicas`."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from transgan_tf import cli
from transgan_tf.presets import get_preset


@dataclass(frozen=True)
class Arguments:
    """Compare a training step on one and on two devices of one machine.

    The global batch is the same, and both have the machine's cores: two logical
    CPU devices share them, so that the ratio is what splitting, reducing and
    smaller batches cost.

    python -m transgan_tf.benchmark_replicas --preset=mnist
    """

    preset: str = "mnist"
    """Networks and recipe; the images are random."""
    steps: int = 20
    """How many steps are measured, alternately; the median of each counts."""


def act(arguments: Arguments) -> int:
    """Prints milliseconds a step of both."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, logical)
    config = get_preset(arguments.preset).config
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    steps = {
        "one device": make_step(config, tf.distribute.get_strategy()),
        "two devices": make_step(config, mirrored),
    }
    seconds = {name: [] for name in steps}
    for _ in range(arguments.steps + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    # The first steps trace and compile.
    one, two = (statistics.median(times[2:]) for times in seconds.values())
    print(f"one device  {1000 * one:8.1f} ms a step")
    print(f"two devices {1000 * two:8.1f} ms a step, {two / one:.2f} of it")
    return cli.DONE


def make_step(config, strategy) -> Callable[[], None]:
    """Returns a function that trains for one step and waits for its end."""
    import numpy as np
    import tensorflow as tf

    from transgan_tf.fitting import distribute
    from transgan_tf.gan import make_gan
    from transgan_tf.stores import ArrayStore
    from transgan_tf.timing import Arrivals

    size, channels = config.generator.image_size, config.generator.channels
    images = np.random.default_rng(0).integers(
        0, 256, (100, size, size, channels), "uint8"
    )
    with strategy.scope():
        gan = make_gan(config)
    store, arrivals = ArrayStore(images), Arrivals()
    batches = iter(distribute(store, config.training, 0, gan, arrivals))

    @tf.function(autograph=False)
    def graph(batch):
        return strategy.run(gan.train_step, (batch,))

    def step():
        losses = graph(next(batches))["generator_loss"]
        strategy.experimental_local_results(losses)[0].numpy()

    return step


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_replicas"
    return cli.run(Arguments, act, command, argv)


if __name__ == "__main__":
    sys.exit(main())
