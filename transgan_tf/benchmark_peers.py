"""Against other implementations: `python -m transgan_tf.benchmark_peers`."""

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf import cli
from transgan_tf import peers
from transgan_tf.benchmark import PARTS
from transgan_tf.checked import UserError
from transgan_tf.checked import require
from transgan_tf.configs import PRECISIONS

# On a GPU both are at work, and TensorFlow would take all of its memory.
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
# What each implementation's process runs.
CODE = "from transgan_tf import benchmark_peers; benchmark_peers.serve()"


@dataclass(frozen=True)
class Arguments:
    """Compare the CIFAR-10 training step with that of other implementations.

    Each runs in a process of its own, and they take turns, one part at a time;
    what is told are medians, and the ratio of the other's to ours. A step is 4
    discriminator updates and a generator update of twice the batch.

    Clone https://github.com/VITA-Group/TransGAN, whose networks are ours, and
    https://github.com/milmor/TransGAN, a TensorFlow port without relative
    positions, whose discriminator is narrower: it is compared with networks of
    ours like these. The authors' needs transgan-tf[torch].

    python -m transgan_tf.benchmark_peers --authors=CLONE --milmor=CLONE
    """

    authors: Path | None = None
    """Folder of the authors' code."""
    milmor: Path | None = None
    """Folder of the TensorFlow port's code."""
    batch_size: int = 16
    """Real images of one discriminator update."""
    rounds: int = 3
    """How often each part is timed, after once that does not count."""
    parts: tuple[Literal[PARTS], ...] = PARTS
    """Which to compare."""
    precision: Literal[PRECISIONS] = "float32"
    """Ours; the others' is float32."""
    jit: bool = True
    """Whether XLA compiles ours."""
    assignments: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(name="set", metavar="FIELD=VALUE"),
    ] = ()
    """Change a field of our configuration, such as training.accumulation=2."""

    def changes(self) -> list[str]:
        """Returns what is changed of our configuration."""
        flags = [
            f"training.precision={self.precision}",
            f"training.jit={self.jit}",
        ]
        return [*flags, *self.assignments]


def act(arguments: Arguments) -> int:
    """Prints a table for each of the others."""
    others = [
        (name, getattr(arguments, name), changes)
        for name, changes in peers.CHANGES.items()
        if getattr(arguments, name) is not None
    ]
    if not others:
        raise UserError("give the folder of a clone by --authors or --milmor")
    rounds = arguments.rounds
    require(rounds >= 1, "--rounds", "must be positive", rounds)
    for name, clone, changes in others:
        check(name, clone)
        changes = [*changes, *arguments.changes()]
        # Mistakes are told here, not by the process that would make them.
        peers.our_config(arguments.batch_size, changes)
        ours = {"batch_size": arguments.batch_size, "changes": changes}
        theirs = {"batch_size": arguments.batch_size, "clone": str(clone)}
        pair = {"ours": ("ours", ours), name: (name, theirs)}
        print(table(name, arguments.batch_size, compare(pair, arguments)))
    return cli.DONE


def check(name: str, clone: Path) -> None:
    """Raises `UserError` if another implementation is not at hand."""
    if not clone.is_dir():
        raise UserError(f"--{name} {clone} is no folder: give a clone's")
    if name == "authors" and importlib.util.find_spec("torch") is None:
        raise UserError(
            "--authors needs PyTorch: pip install 'transgan-tf[torch]'"
        )


def compare(pair: dict, arguments: Arguments) -> dict:
    """Returns medians of seconds by part, and peak memory in bytes, of each."""
    with contextlib.ExitStack() as stack:
        turns = {
            name: stack.enter_context(Turn(*what))
            for name, what in pair.items()
        }
        for part in (*arguments.parts, "reset"):
            for turn in turns.values():
                turn.take(part)
        seen = {}
        for part in arguments.parts:
            seconds = {name: [] for name in turns}
            for _ in range(arguments.rounds):
                for name, turn in turns.items():
                    seconds[name].append(turn.take(part))
            seen[part] = {
                name: statistics.median(all_) for name, all_ in seconds.items()
            }
        seen["memory"] = {n: turn.take("memory") for n, turn in turns.items()}
    return seen


def table(name: str, batch_size: int, seen: dict) -> str:
    """Returns what was seen as Markdown."""
    titles = {
        "sampling": f"generator forward, {batch_size} images, s",
        "discriminator": f"discriminator update, {batch_size} images, s",
        "generator": f"generator update, {peers.FACTOR * batch_size} images, s",
        "step": f"step: {peers.N_CRITIC} of the one and one of the other, s",
        "memory": "peak memory after compiling, GiB",
    }
    lines = [f"| | ours | {name} | {name} / ours |", "|---|---|---|---|"]
    for part, values in seen.items():
        unit = 2**30 if part == "memory" else 1
        ours, theirs = values["ours"] / unit, values[name] / unit
        lines.append(
            f"| {titles[part]} | {ours:.3g} | {theirs:.3g} "
            f"| {theirs / ours:.2f} |"
        )
    return "\n".join(lines)


class Turn:
    """A process that runs parts of one implementation when it is told to."""

    def __init__(self, name: str, options: dict):
        self.name = name
        # The port is written for Keras 2.
        legacy = {"TF_USE_LEGACY_KERAS": "1"} if name == "milmor" else {}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT | legacy,
        )
        self._send(json.dumps([name, options]))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def take(self, part: str) -> float:
        """Runs a part and returns its seconds.

        Of `"memory"` the bytes that the GPU, or else the process, took at its
        peak since `"reset"`.

        Raises:
            UserError: the process ended.
        """
        self._send(part)
        answer = self.process.stdout.readline()
        if not answer:
            raise UserError(f"the process of {self.name} ended; see above")
        return float(answer)

    def _send(self, line):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()


def serve() -> None:
    """Answers each line of standard input, the first of which says what for."""
    # What the implementations print is not an answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    name, options = json.loads(sys.stdin.readline())
    parts = peers.MAKERS[name](**options)
    for line in sys.stdin:
        part = line.strip()
        start = time.perf_counter()
        value = parts[part]()
        seconds = time.perf_counter() - start
        print(value if part == "memory" else seconds, file=answers, flush=True)


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_peers"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
