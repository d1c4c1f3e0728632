"""Stateless random draws, the same on any number of replicas.

A draw is keyed by a seed and by the sample's place in the global batch: each
replica and each micro-batch draws for the whole batch and keeps its own rows.
What is drawn is a few numbers a sample, so this costs next to nothing, and the
same seed gives the same numbers however the batch is split.
"""

import dataclasses
import math

import tensorflow as tf

# Philox, named since the default generator differs between devices; and the key
# by which TensorFlow scrambles seeds for it.
_PHILOX, _SCRAMBLER = 1, 0x02461E293EC8F720


def root_seed(seed) -> tf.Tensor:
    """Returns the `(2,)` int32 key of a whole number's draws.

    Args:
        seed: int below 2**62, or int64 scalar.
    """
    seed = tf.convert_to_tensor(seed, tf.int64)
    halves = tf.stack([seed // 2**31, seed % 2**31])
    return tf.cast(halves, tf.int32)


def fold_in(seed, number) -> tf.Tensor:
    """Returns a new `(2,)` key from a key and a whole number."""
    number = tf.cast(number, tf.int32)
    return tf.stack([_whole_numbers(seed, (), tf.int32), number])


def _whole_numbers(seed, shape, dtype):
    """Returns integers, uniform over the whole range of their type.

    Those of `tf.random.stateless_uniform` with `alg="philox"` and no bounds,
    by a fifth as many operations: a training step has above a hundred draws,
    which were half of its graph.
    """
    mixed = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[2],
        key=tf.constant([_SCRAMBLER], tf.uint64),
        counter=tf.cast(seed, tf.uint64),
        alg=_PHILOX,
        dtype=tf.uint64,
    )
    key, second = tf.split(mixed, 2)
    counter = tf.concat([tf.zeros([1], tf.uint64), second], axis=0)
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape, key=key, counter=counter, alg=_PHILOX, dtype=dtype
    )


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random source of one batch, or of the rows of it at hand.

    Attributes:
        seed: `(2,)` int32 key.
        size: number of samples at hand.
        start: place of the first of them in the global batch.
        total: number of samples of the global batch; `size` if left out.
    """

    seed: tf.Tensor
    size: int
    start: tf.Tensor | int = 0
    total: int | None = None

    def fold_in(self, number) -> "Draws":
        """Returns independent draws for the same samples."""
        return dataclasses.replace(self, seed=fold_in(self.seed, number))

    def normal(self, *shape: int) -> tf.Tensor:
        """Returns standard normal float32 numbers, `(size, *shape)`."""
        shape = (self.total or self.size, *shape)
        return self._own_rows(_normal(self.seed, shape))

    def uniform(self, *shape: int, low=0.0, high=1.0) -> tf.Tensor:
        """Returns float32 numbers in `[low, high)`, `(size, *shape)`."""
        numbers = _uniform(self.seed, (self.total or self.size, *shape))
        return self._own_rows(numbers) * (high - low) + low

    def integers(self, low, high) -> tf.Tensor:
        """Returns int32 numbers in `[low, high)`, `(size,)`."""
        return _scaled(self.uniform(), low, high)

    def shared_uniform(self) -> tf.Tensor:
        """Returns one float32 number in `[0, 1)` for the global batch."""
        return _uniform(self.seed, ())

    def shared_integer(self, low, high) -> tf.Tensor:
        """Returns one int32 number in `[low, high)` for the global batch."""
        return _scaled(self.shared_uniform(), low, high)

    def _own_rows(self, numbers):
        if self.total in (None, self.size):
            return numbers
        begin = [self.start] + [0] * (len(numbers.shape) - 1)
        return tf.slice(numbers, begin, [self.size, *numbers.shape[1:]])


def _uniform(seed, shape):
    """Returns float32 numbers in `[0, 1)`.

    From bits, which XLA and the plain kernels draw alike; each makes other
    floats of them.
    """
    bits = _whole_numbers(seed, shape, tf.uint32)
    kept = tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32))
    # Through int32, since XLA and the kernels know its cast everywhere.
    return tf.cast(tf.cast(kept, tf.int32), tf.float32) * 2.0**-24


def _normal(seed, shape):
    """Returns standard normal float32 numbers, by Box and Muller's method."""
    first, second = tf.unstack(_uniform(seed, (2, *shape)))
    # In (0, 1], where the logarithm is finite.
    radius = tf.sqrt(-2.0 * tf.math.log(1.0 - first))
    return radius * tf.cos(2.0 * math.pi * second)


def _scaled(numbers, low, high):
    """Maps `[0, 1)` to whole numbers in `[low, high)`."""
    low, high = tf.cast(low, tf.int32), tf.cast(high, tf.int32)
    width = tf.cast(high - low, tf.float32)
    offsets = tf.cast(tf.floor(numbers * width), tf.int32)
    # Rounding in the product can reach the bound itself.
    return tf.minimum(low + offsets, high - 1)


def latents(seeds, latent_dim: int, truncation=1.0) -> tf.Tensor:
    """Returns the latents that seeds name: `z = truncation * normal(seed)`.

    A seed's latent does not depend on the others or on their number.

    Args:
        seeds: `(B,)` int64.
        latent_dim: width of a latent.
        truncation: scalar or `(B,)` in (0, 1].

    Returns:
        `(B, latent_dim)` float32.
    """
    normals = _latent_rows(tf.cast(seeds, tf.int64), latent_dim)
    truncation = tf.cast(truncation, tf.float32)
    return normals * tf.reshape(truncation, [-1, 1])


# A graph, since eager `map_fn` takes 10 ms a seed.
@tf.function(autograph=False, reduce_retracing=True)
def _latent_rows(seeds, latent_dim):
    def latent(seed):
        key = tf.stack([seed, tf.zeros_like(seed)])
        return _normal(key, (latent_dim,))

    spec = tf.TensorSpec([latent_dim], tf.float32)
    return tf.map_fn(latent, seeds, fn_output_signature=spec)
