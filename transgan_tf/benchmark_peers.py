"""Against other implementations: `python -m transgan_tf.benchmark_peers`."""

import argparse
import collections.abc
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from typing import Literal

import tyro

from transgan_tf import cli
from transgan_tf.benchmark_memory import device_peak
from transgan_tf.benchmark_memory import reset_device_peak
from transgan_tf.benchmark_memory import reset_peak
from transgan_tf.benchmark_memory import resident
from transgan_tf.checked import UserError
from transgan_tf.checked import require
from transgan_tf.configs import PRECISIONS
from transgan_tf.configs import Config
from transgan_tf.presets import get_preset

PARTS = ("sampling", "discriminator", "generator", "step")
# By name; `"memory"` returns bytes.
Parts = dict[str, Callable[[], object]]
# Of the CIFAR-10 recipe: discriminator updates of a step, and how many times
# the discriminator's batch the generator's is.
N_CRITIC, FACTOR = 4, 2
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
        for name, changes in CHANGES.items()
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
        our_config(arguments.batch_size, changes)
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
        "generator": f"generator update, {FACTOR * batch_size} images, s",
        "step": f"step: {N_CRITIC} of the one and one of the other, s",
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
    parts = MAKERS[name](**options)
    for line in sys.stdin:
        part = line.strip()
        start = time.perf_counter()
        value = parts[part]()
        seconds = time.perf_counter() - start
        print(value if part == "memory" else seconds, file=answers, flush=True)


TENSORFLOW_PEAK = {"reset": reset_device_peak, "memory": device_peak}

# === Ours ===

# What makes the CIFAR-10 networks those of another implementation.
CHANGES = {
    "authors": (),
    "milmor": (
        "generator.relative_position=false",
        "discriminator.relative_position=false",
        "discriminator.attention_noise=false",
        "discriminator.stages.0.width=192",
    ),
}


def our_parts(batch_size: int, changes: list[str]) -> Parts:
    from transgan_tf.benchmark import make_parts

    cli.import_tensorflow_quietly()
    return make_parts(our_config(batch_size, changes)) | TENSORFLOW_PEAK


def our_config(batch_size: int, changes: list[str]) -> Config:
    recipe = (
        f"training.batch_size={batch_size}",
        f"training.generator_batch_factor={FACTOR}",
        f"training.n_critic={N_CRITIC}",
    )
    config = get_preset("cifar10").config
    return config.override([*recipe, *changes])


# === The authors' ===


def authors_parts(batch_size: int, clone: str) -> Parts:
    """Returns the parts of the authors' PyTorch networks, by their recipe."""
    torch, generator, discriminator = authors_networks(clone)
    adam = {"lr": 1e-4, "betas": (0.0, 0.99)}
    images = torch.tanh(torch.randn(batch_size, 3, 32, 32))

    def make(count):
        return generator(torch.randn(count, 256), 0)

    def sample():
        with torch.no_grad():
            make(batch_size)

    def penalty(fake):
        share = torch.rand(batch_size, 1, 1, 1)
        mixed = (share * images + (1 - share) * fake).requires_grad_(True)
        judged = discriminator(mixed).sum()
        (slopes,) = torch.autograd.grad(judged, mixed, create_graph=True)
        return ((slopes.flatten(1).norm(2, dim=1) - 1) ** 2).mean()

    def minimize(loss, network, optimizer):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()

    optimizers = [
        torch.optim.Adam(network.parameters(), **adam)
        for network in (discriminator, generator)
    ]

    def update_discriminator():
        with torch.no_grad():
            fake = make(batch_size)
        real = discriminator(images).mean()
        loss = discriminator(fake).mean() - real + 1e-3 * real**2
        loss = loss + 10 * penalty(fake)
        minimize(loss, discriminator, optimizers[0])

    def update_generator():
        loss = -discriminator(make(FACTOR * batch_size)).mean()
        minimize(loss, generator, optimizers[1])

    parts = with_step(sample, update_discriminator, update_generator)
    return settling(parts, torch) | torch_peak(torch)


def settling(parts: Parts, torch) -> Parts:
    """Returns parts that also wait for the GPU, if there is one."""
    if not torch.cuda.is_available():
        return parts

    def waiting(part):
        return lambda: (part(), torch.cuda.synchronize())

    return {name: waiting(part) for name, part in parts.items()}


def torch_peak(torch) -> Parts:
    """Returns what `TENSORFLOW_PEAK` has, of what PyTorch allocates."""
    if not torch.cuda.is_available():
        return {"reset": reset_peak, "memory": lambda: resident("VmHWM")}
    cuda = torch.cuda
    memory = cuda.max_memory_allocated
    return {"reset": cuda.reset_peak_memory_stats, "memory": memory}


def authors_networks(clone: str):
    """Imports the authors' CIFAR-10 networks out of a clone.

    Returns:
        PyTorch, which makes tensors on the GPU from now on if there is one, the
        generator and the discriminator, as `exps/cifar_train.py` configures
        them.
    """
    import torch

    if torch.cuda.is_available():
        torch.set_default_device("cuda")
        # As ours: PyTorch leaves TF32 on for convolutions.
        torch.backends.cudnn.allow_tf32 = False
    # They are written for an older PyTorch and for GPUs.
    torch.Tensor.get_device = lambda tensor: tensor.device
    shim("torch._six", container_abcs=collections.abc)
    # What its `__init__` and these would import is for other networks.
    shim("models_search", __path__=[str(Path(clone, "models_search"))])
    shim("utils", __path__=[])
    shim("utils.utils", make_grid=None, save_image=None)
    sys.path.insert(0, clone)
    from models_search import ViT_custom_rp
    from models_search import ViT_custom_scale2_rp_noise

    settings = argparse.Namespace(
        img_size=32,
        bottom_width=8,
        gf_dim=1024,
        g_depth="5,4,2",
        g_norm="ln",
        g_mlp=4,
        g_act="gelu",
        latent_dim=256,
        latent_norm=False,
        df_dim=384,
        d_depth=3,
        d_heads=4,
        d_norm="ln",
        d_mlp=4,
        d_act="gelu",
        d_window_size=8,
        patch_size=2,
        dropout=0,
        diff_aug="translation,cutout,color",
    )
    generator = ViT_custom_rp.Generator(settings)
    return torch, generator, ViT_custom_scale2_rp_noise.Discriminator(settings)


def shim(name: str, **attributes) -> None:
    """Puts a module with these attributes where `name` is imported from."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


# === The TensorFlow port's ===


def milmor_parts(batch_size: int, clone: str) -> Parts:
    """Returns the parts of the TensorFlow port, compiled as it compiles."""
    cli.import_tensorflow_quietly()
    import tensorflow as tf

    sys.path.insert(0, clone)
    from model import Discriminator
    from model import Generator

    generator, discriminator = Generator(), Discriminator()
    images = tf.tanh(tf.random.normal((batch_size, 32, 32, 3)))
    optimizers = [tf.keras.optimizers.Adam(1e-4, 0.0, 0.99) for _ in range(2)]

    def make(count):
        latents = tf.random.normal((count, 256))
        return generator(latents, training=True)[0]

    def judge(images):
        return discriminator(images, training=True)[0]

    def minimize(loss, network, optimizer, tape):
        weights = network.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, weights), 5.0)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    def penalty(fake):
        share = tf.random.uniform((batch_size, 1, 1, 1))
        mixed = share * images + (1 - share) * fake
        with tf.GradientTape() as tape:
            tape.watch(mixed)
            judged = judge(mixed)
        slopes = tf.reshape(tape.gradient(judged, mixed), (batch_size, -1))
        return tf.reduce_mean((tf.norm(slopes, axis=1) - 1.0) ** 2)

    @tf.function
    def sample():
        return make(batch_size)

    @tf.function
    def update_discriminator():
        fake = make(batch_size)
        with tf.GradientTape() as tape:
            real = tf.reduce_mean(judge(images))
            loss = tf.reduce_mean(judge(fake)) - real + 1e-3 * real**2
            loss += 10.0 * penalty(fake)
        minimize(loss, discriminator, optimizers[0], tape)
        return loss

    @tf.function
    def update_generator():
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(judge(make(FACTOR * batch_size)))
        minimize(loss, generator, optimizers[1], tape)
        return loss

    def waiting(function):
        return lambda: function().numpy()

    functions = (sample, update_discriminator, update_generator)
    return with_step(*map(waiting, functions)) | TENSORFLOW_PEAK


def with_step(sample, update_discriminator, update_generator) -> Parts:
    """Returns the parts of a step by name, and the step made of them."""

    def step():
        for _ in range(N_CRITIC):
            update_discriminator()
        update_generator()

    parts = (sample, update_discriminator, update_generator, step)
    return dict(zip(PARTS, parts, strict=True))


MAKERS = {
    "ours": our_parts,
    "authors": authors_parts,
    "milmor": milmor_parts,
}


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_peers"
    return cli.run(Arguments, act, command, argv, needs_tensorflow=False)


if __name__ == "__main__":
    sys.exit(main())
