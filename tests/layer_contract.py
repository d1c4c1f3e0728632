"""The contract that every layer passes, in KerasHub's manner."""

import json

import keras
import numpy as np
import tensorflow as tf

from transgan_tf.randomness import Draws
from transgan_tf.randomness import root_seed

POLICIES = {
    "float32": "float32",
    "mixed_bfloat16": "bfloat16",
    "mixed_float16": "float16",
}


class LayerContract:
    """The checks of one layer.

    Args:
        layer: class.
        arguments: dict of its constructor's arguments.
        input_shape: shape of its input, with the batch.
        output_shape: shape of its output, with the batch.
        takes_draws: whether calls get `Draws`, without which some weights
            would do nothing.
        output_dtype: the output's type where it is the same in every policy.
    """

    def __init__(
        self,
        layer,
        arguments,
        input_shape,
        output_shape,
        takes_draws=False,
        output_dtype=None,
    ):
        self.layer = layer
        self.arguments = arguments
        self.output_shape = output_shape
        self.output_dtype = output_dtype
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal(input_shape).astype("float32")
        self.extra = {}
        if takes_draws:
            self.extra["draws"] = Draws(root_seed(1), input_shape[0])

    def make(self, **kwargs):
        """Returns the layer with weights that all do something."""
        keras.utils.set_random_seed(0)
        layer = self.layer(**self.arguments, **kwargs)
        layer.build(self.x.shape)
        rng = np.random.default_rng(1)
        for weight in layer.weights:
            weight.assign(weight + rng.uniform(-0.5, 0.5, weight.shape))
        return layer

    def check_config(self):
        layer = self.layer(**self.arguments, name="mine")
        config = layer.get_config()
        own = {name: config[name] for name in self.arguments}
        assert own == self.arguments
        again = self.layer.from_config(json.loads(json.dumps(config)))
        assert again.get_config() == config
        layer.build(self.x.shape)
        assert layer.get_config() == config
        assert again.name == "mine"

    def check_build(self):
        layer = self.layer(**self.arguments)
        layer.build(self.x.shape)
        names = [weight.path for weight in layer.weights]
        layer(self.x, **self.extra)
        assert names == [weight.path for weight in layer.weights]
        assert len(set(names)) == len(names)
        # Built by its first call, it has the same weights.
        called = self.layer(**self.arguments)
        called(self.x, **self.extra)
        shapes = [weight.shape for weight in called.weights]
        assert shapes == [weight.shape for weight in layer.weights]

    def check_calls(self):
        layer = self.make()
        eager = layer(self.x, **self.extra)
        assert eager.shape == self.output_shape
        assert layer.compute_output_shape(self.x.shape) == self.output_shape
        unknown = layer.compute_output_shape((None, *self.x.shape[1:]))
        assert unknown == (None, *self.output_shape[1:])
        symbolic = keras.Input(self.x.shape[1:])
        model = keras.Model(symbolic, layer(symbolic))
        assert model.output_shape == unknown
        self._close(model(self.x), layer(self.x))
        # In a graph that does not know the batch.
        spec = tf.TensorSpec((None, *self.x.shape[1:]))
        graph = tf.function(layer, input_signature=[spec])
        self._close(graph(self.x), layer(self.x))

    def check_policy(self, policy):
        layer = self.make(dtype=policy)
        y = layer(self.x, **self.extra)
        assert tf.as_dtype(y.dtype).name == (
            self.output_dtype or POLICIES[policy]
        )
        assert {weight.dtype for weight in layer.weights} <= {"float32"}
        exact = np.asarray(self.make()(self.x, **self.extra))
        y = keras.ops.convert_to_numpy(keras.ops.cast(y, "float32"))
        tolerance = {"float32": 1e-6, "mixed_float16": 5e-3}.get(policy, 4e-2)
        assert np.abs(y - exact).max() <= tolerance * np.abs(exact).max()

    def check_saving(self, folder):
        symbolic = keras.Input(self.x.shape[1:])
        model = keras.Model(symbolic, self.make()(symbolic))
        path = folder / "model.keras"
        model.save(path)
        again = keras.models.load_model(path)
        (loaded,) = (v for v in again.layers if isinstance(v, self.layer))
        assert loaded.get_config() == model.layers[-1].get_config()
        self._close(again(self.x), model(self.x), tolerance=0.0)

    def check_gradients(self):
        layer = self.make()
        assert layer.trainable_variables == layer.weights
        with tf.GradientTape() as tape:
            # Not a plain sum, whose slope a normalization cancels.
            y = layer(self.x, **self.extra)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)) ** 2)
        weights = [weight.value for weight in layer.trainable_variables]
        for weight, gradient in zip(
            layer.weights, tape.gradient(loss, weights), strict=True
        ):
            assert gradient is not None, weight.path
            gradient = tf.convert_to_tensor(gradient).numpy()
            assert np.isfinite(gradient).all(), weight.path
            assert np.abs(gradient).max() > 0, weight.path

    def _close(self, one, other, tolerance=1e-6):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)
