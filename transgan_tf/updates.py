"""One update of a network's weights, skipped where it would destroy them."""

import tensorflow as tf

from transgan_tf.splitting import average_over_replicas
from transgan_tf.splitting import replica_count


def update_weights(optimizer, network, gradients, loss, clip_norm):
    """Averages over replicas, clips, and updates if everything is finite.

    Call it in a replica's context. An update that is skipped leaves weights
    and optimizer as they were.

    Args:
        optimizer: Keras optimizer, built.
        network: Keras model; its trainable weights are updated.
        gradients: this replica's, one for each of them.
        loss: this replica's scalar.
        clip_norm: global norm that the gradients are clipped to.

    Returns:
        The global norm before clipping, float32, and whether it and the loss
        are finite on all replicas, bool; both scalars, the same on each.
    """
    *gradients, loss = average_over_replicas([*gradients, loss])
    norm = tf.linalg.global_norm(gradients)
    finite = tf.math.is_finite(norm) & tf.math.is_finite(loss)
    gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, use_norm=norm)
    # Keras sums over replicas what has been averaged already.
    gradients = [gradient / replica_count() for gradient in gradients]
    _apply_if(finite, optimizer, gradients, network.trainable_variables)
    return norm, finite


def _apply_if(condition, optimizer, gradients, variables):
    def apply(gradients):
        optimizer.apply(gradients, variables)

    if not tf.distribute.has_strategy():
        tf.cond(condition, lambda: apply(gradients), lambda: None)
        return

    def merge(strategy, condition, gradients):
        # A condition cannot hold a replica's merge_call, such as the
        # optimizer's; but it can hold all replicas.
        def apply_to_each():
            run = strategy.extended.call_for_each_replica
            run(apply, args=(gradients,))

        same = strategy.experimental_local_results(condition)[0]
        tf.cond(same, apply_to_each, lambda: None)

    context = tf.distribute.get_replica_context()
    context.merge_call(merge, args=(condition, gradients))
