"""The authors' optimizer."""

import keras


def paper_adam(
    learning_rate=1e-4,
    beta_1=0.0,
    beta_2=0.99,
    epsilon=1e-8,
    decay_updates=None,
) -> keras.optimizers.Adam:
    """Returns the authors' Adam: betas (0, 0.99), PyTorch's epsilon.

    Args:
        learning_rate: at the first update.
        beta_1, beta_2, epsilon: Adam's; Keras' own epsilon is 1e-7.
        decay_updates: the rate falls linearly to 0 at this update; None for a
            constant rate.

    Reference:
        The authors' `exps/cifar_train.py` and `train_derived.py`.
    """
    if decay_updates is not None:
        learning_rate = keras.optimizers.schedules.PolynomialDecay(
            learning_rate, decay_updates, end_learning_rate=0.0
        )
    return keras.optimizers.Adam(
        learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon
    )
