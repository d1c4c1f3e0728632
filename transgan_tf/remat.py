"""Recomputation: a layer's activations are made again for its gradient.

Within `recomputing`, what `call_layer` calls keeps its inputs alone; its
gradient runs the layer once more. TensorFlow's `tf.recompute_grad` and
`keras.remat` do this for a first derivative and raise under a second, which
the gradient penalty takes. Here the gradient is itself a function whose
activations are made again, and so on: it can be taken any number of times.

Reference:
    Chen et al. 2016 (https://arxiv.org/abs/1604.06174); `jax.checkpoint`.
"""

import contextlib
import threading
from collections.abc import Collection

import keras
import tensorflow as tf


class _State(threading.local):
    """How this thread's layers are called.

    Attributes:
        recomputed: tells of a stage's name whether its blocks are.
        inputs_alone: whether within `inputs_alone`.
    """

    recomputed = staticmethod(lambda stage: False)
    inputs_alone = False


_state = _State()


@contextlib.contextmanager
def _within(name, value):
    old = getattr(_state, name)
    setattr(_state, name, value)
    try:
        yield
    finally:
        setattr(_state, name, old)


def recomputing(stages: Collection[str] | None = None):
    """Lets the layers called within it be recomputed.

    Gradients, too, must be taken within it.

    Args:
        stages: names of the stages whose layers are, see `call_layer`; None for
            all.
    """
    if stages is None:
        return _within("recomputed", lambda stage: True)
    return _within("recomputed", frozenset(stages).__contains__)


def inputs_alone():
    """Says that gradients taken within it are of inputs, not of weights.

    A tape does not tell a layer which gradients it needs. The penalty's inner
    derivative is of images; that of the weights would be computed in vain.
    """
    return _within("inputs_alone", True)


def call_layer(layer: keras.layers.Layer, x, stage: str = "", **kwargs):
    """Returns `layer(x, **kwargs)`, recomputed within `recomputing`.

    Args:
        layer: built, without weights that calls change, and under
            `stateless_call`.
        x: tensor.
        stage: name of the stage that it belongs to.
        **kwargs: passed on; nothing in them gets a gradient.
    """
    if not _state.recomputed(stage):
        return layer(x, **kwargs)

    def function(inputs, weights):
        y, _ = layer.stateless_call(weights, [], *inputs, **kwargs)
        return [y]

    return _recomputed(function, [x], _current_weights(layer))[0]


def _current_weights(layer):
    """Returns the float32 tensors that stand for a layer's weights.

    A variable's `value` would be of the compute type here: one more copy to
    keep until the gradient.
    """
    with keras.StatelessScope() as inner:
        scope = inner.original_scope
    return [scope.get_current_value(v) for v in layer.trainable_variables]


def _recomputed(function, inputs, weights):
    """Returns `function(inputs, weights)`, lists of tensors in and out."""
    count = len(inputs)

    @tf.custom_gradient
    def call(*tensors):
        def gradient(*upstream):
            held = _held(tensors[:count], upstream[0])
            signals = [*held, *upstream]
            return _pulled(function, signals, tensors[count:], count)

        return function(tensors[:count], tensors[count:]), gradient

    return call(*inputs, *weights)


def _pulled(function, signals, weights, count):
    """Returns the gradients of a function's inputs and weights, recomputed.

    Args:
        function: see `_recomputed`.
        signals: its inputs, and the gradients of its outputs.
        weights: its weights.
        count: how many inputs it has.
    """
    wanted = count if _state.inputs_alone else count + len(weights)

    def pull(signals, weights):
        sources = [*signals[:count], *weights][:wanted]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = function(signals[:count], weights)
        gradients = tape.gradient(
            outputs, sources, signals[count:], unconnected_gradients="zero"
        )
        # A table's are rows with their indices.
        return [tf.convert_to_tensor(gradient) for gradient in gradients]

    gradients = _recomputed(pull, signals, weights)
    return [*gradients, *[None] * (count + len(weights) - wanted)]


def _held(tensors, upstream):
    """Returns the same numbers, which cannot be had before `upstream`.

    Without this, a second run of the same operations on the same tensors would
    be merged with the first, or be run as early. XLA drops control
    dependencies, and on a CPU its optimization barriers, too; but it cannot
    know that a number equals itself, since NaN does not.
    """
    first = tf.reshape(upstream, [-1])[0]
    one = tf.stop_gradient(tf.where(first == first, 1.0, float("nan")))
    return [tensor * tf.cast(one, tensor.dtype) for tensor in tensors]
