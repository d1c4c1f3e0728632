"""How long checkpoints take: `python -m transgan_tf.benchmark_checkpoints`."""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from transgan_tf import cli
from transgan_tf.presets import get_preset

# Training may wait for this share of the time between two checkpoints.
SHARE = 0.02


@dataclass(frozen=True)
class Arguments:
    """Measure how long training waits for a checkpoint of a preset's networks.

    It waits while the state is copied; the copy is written beside the steps
    that follow.

    python -m transgan_tf.benchmark_checkpoints --preset=celeba_128
    """

    preset: str = "celeba_128"
    """Whose networks."""
    folder: Path = Path(tempfile.gettempdir())
    """Where to write, and remove again."""


def act(arguments: Arguments) -> int:
    """Prints medians of three checkpoints."""
    from transgan_tf.checkpoints import CheckpointFolder
    from transgan_tf.checkpoints import snapshot
    from transgan_tf.gan import make_gan

    config = get_preset(arguments.preset).config
    gan = make_gan(config)
    copying, writing = [], []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for step in range(3):
            start = time.perf_counter()
            arrays = snapshot(gan)
            copied = time.perf_counter()
            CheckpointFolder(folder, keep=1).write(step, arrays)
            copying.append(copied - start)
            writing.append(time.perf_counter() - copied)
    size = sum(array.nbytes for array in arrays.values()) / 2**30
    waited, written = map(statistics.median, (copying, writing))
    every = config.training.checkpoint_every_steps
    print(f"{arguments.preset}: a state of {size:.2f} GiB")
    print(f"training waits {waited:.2f} s; writing beside it {written:.1f} s")
    shortest, worst = (
        1000 * seconds / SHARE / every for seconds in (waited, waited + written)
    )
    print(
        f"below {SHARE:.0%} of the time between checkpoints, every {every} "
        f"steps, if a step takes {shortest:.0f} ms or more; if writing held "
        f"the steps up altogether, {worst:.0f} ms or more"
    )
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_checkpoints"
    return cli.run(Arguments, act, command, argv)


if __name__ == "__main__":
    sys.exit(main())
