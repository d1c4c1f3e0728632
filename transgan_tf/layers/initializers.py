"""Initial distributions: the authors', and those of the convolutional pair.

Dense layers of the generator and all biases of convolutions start as PyTorch's
defaults do, uniform within 1 / sqrt(fan_in). The discriminator's dense layers
and every embedding start normal with deviation 0.02; the authors truncate at
an absolute 2, which is a hundred deviations and so no truncation (Keras'
`TruncatedNormal(stddev=0.02)` would give a deviation of 0.0176).
"""

import keras

from transgan_tf.checked import require_choice

EMBEDDING_DEVIATION = 0.02
INITIALIZATIONS = ("fan_in_uniform", "normal")


def fan_in_uniform(fan_in: int) -> keras.initializers.Initializer:
    """Returns the uniform initializer within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)


def embedding_normal() -> keras.initializers.Initializer:
    """Returns the normal initializer of embeddings and tables."""
    return keras.initializers.RandomNormal(stddev=EMBEDDING_DEVIATION)


def check_initialization(initialization: str) -> None:
    """Raises `ValueError` for a name that `dense` does not know."""
    require_choice("initialization", initialization, INITIALIZATIONS)


def dense(units, fan_in, initialization, **kwargs) -> keras.layers.Dense:
    """Returns a dense layer with one of the authors' initializations.

    Args:
        units: width of the output.
        fan_in: width of the input.
        initialization: `"fan_in_uniform"` (the generator's) or `"normal"`
            (the discriminator's, with biases 0).
        **kwargs: passed to `keras.layers.Dense`.
    """
    if initialization == "normal":
        kernel, bias = embedding_normal(), "zeros"
    else:
        kernel, bias = fan_in_uniform(fan_in), fan_in_uniform(fan_in)
    return keras.layers.Dense(
        units, kernel_initializer=kernel, bias_initializer=bias, **kwargs
    )


def convolution(width, size, gain=2.0, **kwargs) -> keras.layers.Conv2D:
    """Returns a convolution that keeps a map's sides, its biases 0.

    The kernel starts uniform with the variance 2 * gain / (fan_in + fan_out),
    as in Gulrajani et al. 2017 (https://arxiv.org/abs/1704.00028).

    Args:
        width: channels of the output.
        size: side of the kernel.
        gain: 2 (He et al.'s) before an activation, else 1 (Xavier's).
        **kwargs: passed to `keras.layers.Conv2D`.
    """
    kernel = keras.initializers.VarianceScaling(gain, "fan_avg", "uniform")
    return keras.layers.Conv2D(
        width, size, padding="same", kernel_initializer=kernel, **kwargs
    )
