"""Exponential moving average of the generator's weights."""

import tensorflow as tf


def ema_decay(images_seen, batch_size, images, warmup, fixed=None):
    """Returns the decay of one update, a float32 scalar in [0, 1).

    `0.5 ** (batch_size / min(images, warmup * images_seen))`: the weights'
    half-life is `images` images, and at first a share of those seen. With no
    image seen the decay is 0: the average is the weights.

    Args:
        images_seen: real images that the discriminator has seen.
        batch_size: real images of one discriminator update.
        images: half-life, in images.
        warmup: share of `images_seen` that the half-life may reach.
        fixed: a decay that replaces all this, or None.

    Reference:
        Karras et al. 2020 (https://arxiv.org/abs/2006.06676); the authors'
        `functions.py`.
    """
    if fixed is not None:
        return tf.constant(fixed, tf.float32)
    seen = tf.cast(images_seen, tf.float32)
    half_life = tf.minimum(float(images), warmup * seen)
    # The authors' guard against a division by 0 at the first step.
    return 0.5 ** (batch_size / tf.maximum(half_life, 1e-8))


def update_average(averages, variables, decay) -> None:
    """Moves each average: `a = decay * a + (1 - decay) * v`.

    Works in a replica's context: all replicas hold the same weights, so each
    assigns to its own copies.

    Args:
        averages: Keras variables.
        variables: Keras variables of the same shapes.
        decay: scalar.
    """

    def assign(average, value, decay):
        average.assign(decay * average + (1.0 - decay) * value)

    def merge(strategy, pairs, decay):
        for average, variable in pairs:
            strategy.extended.update(average, assign, args=(variable, decay))

    pairs = [
        (average.value, tf.convert_to_tensor(variable.value))
        for average, variable in zip(averages, variables, strict=True)
    ]
    tf.distribute.get_replica_context().merge_call(merge, args=(pairs, decay))
