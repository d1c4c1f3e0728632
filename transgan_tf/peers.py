"""Parts of a training step, of ours and of other implementations, to be timed.

Each is a dict of functions: those of `transgan_tf.benchmark.PARTS`, which run a
part and wait for its end, and `"reset"` and `"memory"`, of the memory's peak.
"""

import argparse
import collections.abc
import sys
import types
from collections.abc import Callable
from pathlib import Path

from transgan_tf import cli
from transgan_tf.benchmark import make_parts
from transgan_tf.benchmark_memory import device_peak
from transgan_tf.benchmark_memory import reset_device_peak
from transgan_tf.benchmark_memory import reset_peak
from transgan_tf.benchmark_memory import resident
from transgan_tf.configs import Config
from transgan_tf.presets import get_preset

# By name; `"memory"` returns bytes.
Parts = dict[str, Callable[[], object]]
# Of the CIFAR-10 recipe: discriminator updates of a step, and how many times
# the discriminator's batch the generator's is.
N_CRITIC, FACTOR = 4, 2
# What else both peers take from it: Adam's rate, beta 1 and beta 2, the norm
# that gradients are clipped to, the weights of penalty and drift, and the
# latents' channels.
RATE, BETAS, CLIP_NORM = 1e-4, (0.0, 0.99), 5.0
PENALTY_WEIGHT, DRIFT_WEIGHT, LATENT_DIM = 10.0, 1e-3, 256
TENSORFLOW_PEAK = {"reset": reset_device_peak, "memory": device_peak}


def with_step(peer) -> Parts:
    """Returns a peer's parts by name, and the step made of them.

    Args:
        peer: has `sample`, `update_discriminator` and `update_generator`.
    """

    def step():
        for _ in range(N_CRITIC):
            peer.update_discriminator()
        peer.update_generator()

    return {
        "sampling": peer.sample,
        "discriminator": peer.update_discriminator,
        "generator": peer.update_generator,
        "step": step,
    }


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

# What `exps/cifar_train.py` configures.
AUTHORS_SETTINGS = {
    "img_size": 32,
    "bottom_width": 8,
    "gf_dim": 1024,
    "g_depth": "5,4,2",
    "g_norm": "ln",
    "g_mlp": 4,
    "g_act": "gelu",
    "latent_dim": LATENT_DIM,
    "latent_norm": False,
    "df_dim": 384,
    "d_depth": 3,
    "d_heads": 4,
    "d_norm": "ln",
    "d_mlp": 4,
    "d_act": "gelu",
    "d_window_size": 8,
    "patch_size": 2,
    "dropout": 0,
    "diff_aug": "translation,cutout,color",
}


def authors_parts(batch_size: int, clone: str) -> Parts:
    import torch

    if torch.cuda.is_available():
        # Makes tensors there from now on.
        torch.set_default_device("cuda")
        # As ours: PyTorch leaves TF32 on for convolutions.
        torch.backends.cudnn.allow_tf32 = False
    peer = Authors(batch_size, *authors_networks(clone))
    return settling(with_step(peer), torch) | torch_peak(torch)


def authors_networks(clone: str) -> tuple:
    """Makes the authors' CIFAR-10 generator and discriminator.

    On PyTorch's default device.
    """
    import torch

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

    settings = argparse.Namespace(**AUTHORS_SETTINGS)
    generator = ViT_custom_rp.Generator(settings)
    return generator, ViT_custom_scale2_rp_noise.Discriminator(settings)


def shim(name: str, **attributes) -> None:
    """Puts a module with these attributes where `name` is imported from."""
    module = types.ModuleType(name)
    vars(module).update(attributes)
    sys.modules[name] = module


class Authors:
    """The authors' PyTorch networks, trained by their recipe."""

    def __init__(self, batch_size, generator, discriminator):
        import torch

        self.torch = torch
        self.batch_size = batch_size
        self.generator, self.discriminator = generator, discriminator
        self.images = torch.tanh(torch.randn(batch_size, 3, 32, 32))
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS)
            for network in (generator, discriminator)
        )

    def sample(self):
        with self.torch.no_grad():
            return self._make(self.batch_size)

    def update_discriminator(self):
        fake = self.sample()
        real = self.discriminator(self.images).mean()
        loss = self.discriminator(fake).mean() - real + DRIFT_WEIGHT * real**2
        loss = loss + PENALTY_WEIGHT * self._penalty(fake)
        self._minimize(loss, self.discriminator, self.discriminator_optimizer)

    def update_generator(self):
        fake = self._make(FACTOR * self.batch_size)
        loss = -self.discriminator(fake).mean()
        self._minimize(loss, self.generator, self.generator_optimizer)

    def _make(self, count):
        return self.generator(self.torch.randn(count, LATENT_DIM), 0)

    def _penalty(self, fake):
        torch, images = self.torch, self.images
        share = torch.rand(self.batch_size, 1, 1, 1)
        mixed = (share * images + (1 - share) * fake).requires_grad_(True)
        judged = self.discriminator(mixed).sum()
        (slopes,) = torch.autograd.grad(judged, mixed, create_graph=True)
        return ((slopes.flatten(1).norm(2, dim=1) - 1) ** 2).mean()

    def _minimize(self, loss, network, optimizer):
        optimizer.zero_grad()
        loss.backward()
        clip = self.torch.nn.utils.clip_grad_norm_
        clip(network.parameters(), CLIP_NORM)
        optimizer.step()


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


# === The TensorFlow port's ===


def milmor_parts(batch_size: int, clone: str) -> Parts:
    cli.import_tensorflow_quietly()
    sys.path.insert(0, clone)
    from model import Discriminator
    from model import Generator

    port = Milmor(batch_size, Generator(), Discriminator())
    return with_step(port) | TENSORFLOW_PEAK


class Milmor:
    """The TensorFlow port's networks, trained and compiled by its recipe."""

    def __init__(self, batch_size, generator, discriminator):
        import tensorflow as tf

        self.tf = tf
        self.batch_size = batch_size
        self.generator, self.discriminator = generator, discriminator
        self.images = tf.tanh(tf.random.normal((batch_size, 32, 32, 3)))
        self.generator_optimizer, self.discriminator_optimizer = (
            tf.keras.optimizers.Adam(RATE, *BETAS) for _ in range(2)
        )
        self.sample = self._compiled(self._sample)
        self.update_discriminator = self._compiled(self._update_discriminator)
        self.update_generator = self._compiled(self._update_generator)

    def _compiled(self, part):
        graph = self.tf.function(part)
        return lambda: graph().numpy()

    def _sample(self):
        return self._make(self.batch_size)

    def _update_discriminator(self):
        tf = self.tf
        fake = self._make(self.batch_size)
        with tf.GradientTape() as tape:
            real = tf.reduce_mean(self._judge(self.images))
            loss = tf.reduce_mean(self._judge(fake)) - real
            loss += DRIFT_WEIGHT * real**2
            loss += PENALTY_WEIGHT * self._penalty(fake)
        self._minimize(
            loss, self.discriminator, self.discriminator_optimizer, tape
        )
        return loss

    def _update_generator(self):
        tf = self.tf
        with tf.GradientTape() as tape:
            fake = self._make(FACTOR * self.batch_size)
            loss = -tf.reduce_mean(self._judge(fake))
        self._minimize(loss, self.generator, self.generator_optimizer, tape)
        return loss

    def _make(self, count):
        latents = self.tf.random.normal((count, LATENT_DIM))
        return self.generator(latents, training=True)[0]

    def _judge(self, images):
        return self.discriminator(images, training=True)[0]

    def _penalty(self, fake):
        tf = self.tf
        share = tf.random.uniform((self.batch_size, 1, 1, 1))
        mixed = share * self.images + (1 - share) * fake
        with tf.GradientTape() as tape:
            tape.watch(mixed)
            judged = self._judge(mixed)
        slopes = tf.reshape(tape.gradient(judged, mixed), (self.batch_size, -1))
        return tf.reduce_mean((tf.norm(slopes, axis=1) - 1.0) ** 2)

    def _minimize(self, loss, network, optimizer, tape):
        weights = network.trainable_variables
        gradients = tape.gradient(loss, weights)
        gradients, _ = self.tf.clip_by_global_norm(gradients, CLIP_NORM)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))


MAKERS = {
    "ours": our_parts,
    "authors": authors_parts,
    "milmor": milmor_parts,
}
