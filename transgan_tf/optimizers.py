"""The authors' optimizer."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="transgan_tf")
class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that is constant at first and then falls linearly to 0.

    Args:
        rate: the rate until the update number `first`.
        first: the update from which on it falls.
        last: the update, after `first`, at which it is 0.
    """

    def __init__(self, rate, first, last):
        self.rate = rate
        self.first = first
        self.last = last

    def __call__(self, step):
        left = self.last - ops.cast(step, "float32")
        share = left / (self.last - self.first)
        return self.rate * ops.clip(share, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "first": self.first, "last": self.last}


def paper_adam(
    learning_rate=1e-4,
    beta_1=0.0,
    beta_2=0.99,
    epsilon=1e-8,
    decay=None,
) -> keras.optimizers.Adam:
    """Returns the authors' Adam: betas (0, 0.99), PyTorch's epsilon.

    Args:
        learning_rate: at the first update.
        beta_1, beta_2, epsilon: Adam's; Keras' own epsilon is 1e-7.
        decay: `(first, last)` of `ConstantThenLinear`; None for a constant
            rate.

    Reference:
        The authors' `exps/cifar_train.py` and `train_derived.py`.
    """
    if decay is not None:
        learning_rate = ConstantThenLinear(learning_rate, *decay)
    return keras.optimizers.Adam(
        learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon
    )
