"""What a version answers: the three signatures of a generator.

Each takes rows and gives as many, so that a server may join several requests
into one batch; each checks its inputs in the graph, since TensorFlow Serving
compares them with the signature in type alone.
"""

import tensorflow as tf

from transgan_tf.randomness import latents
from transgan_tf.records import to_uint8

SERVING_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
SAMPLE, INTERPOLATE = "sample", "interpolate"

# Below this sine of their angle, two latents are interpolated straight, since
# the arc between them is none or any.
_LEAST_SINE = 1e-6


def make_signatures(generator) -> dict:
    """Returns the signatures of a generator, traced, by key.

    `serving_default`: `latents (N, Z)` float32, finite, to `images
    (N, H, W, C)` float32 in [-1, 1].

    `sample`: `seed (N,)` int64, any number that the type holds, and
    `truncation (N,)` float32 in (0, 1], to `png_bytes (N,)`. The latents are
    those of `transgan_tf.randomness.latents`, whatever the batch.

    `interpolate`: `start (N,)` and `stop (N,)` int64 seeds, `position (N,)`
    float32 in [0, 1] and `truncation (N,)` as above, to `png_bytes (N,)`, by
    `transgan_tf.sampling.slerp`.

    N may be 0. Values that break a rule are an `InvalidArgumentError` that
    names the input and the rule.

    Args:
        generator: built `Generator`, of any precision.
    """
    width = generator.config.latent_dim
    render = _renderer(generator)

    @_signature(latents=_spec(tf.float32, width))
    def serving_default(latents):
        return {"images": render(_check_latents(latents, width))}

    @_signature(seed=_spec(tf.int64), truncation=_spec(tf.float32))
    def sample(seed, truncation):
        inputs = {"seed": seed, "truncation": truncation}
        inputs = _check_rows(inputs)
        truncation = _check_truncation(inputs["truncation"])
        z = latents(inputs["seed"], width, truncation)
        return {"png_bytes": _encode(render(z))}

    @_signature(
        start=_spec(tf.int64),
        stop=_spec(tf.int64),
        position=_spec(tf.float32),
        truncation=_spec(tf.float32),
    )
    def interpolate(start, stop, position, truncation):
        inputs = {
            "start": start,
            "stop": stop,
            "position": position,
            "truncation": truncation,
        }
        inputs = _check_rows(inputs)
        truncation = _check_truncation(inputs["truncation"])
        position = _check_position(inputs["position"])
        ends = (
            latents(inputs[name], width, truncation)
            for name in ("start", "stop")
        )
        return {"png_bytes": _encode(render(slerp(*ends, position)))}

    functions = (serving_default, sample, interpolate)
    keys = (SERVING_DEFAULT, SAMPLE, INTERPOLATE)
    return dict(zip(keys, functions, strict=True))


def slerp(start, stop, position) -> tf.Tensor:
    """Spherical interpolation of latents, as `transgan_tf.sampling.slerp`.

    In float64, since the arc cosine loses half of the digits near 1.

    Args:
        start, stop: `(N, Z)` float32.
        position: `(N,)` float32 in [0, 1].

    Returns:
        `(N, Z)` float32.
    """
    start, stop = tf.cast(start, tf.float64), tf.cast(stop, tf.float64)
    position = tf.cast(position, tf.float64)[:, None]  # (N, 1)
    lengths = [tf.norm(z, axis=1, keepdims=True) for z in (start, stop)]
    first = tf.math.divide_no_nan(start, lengths[0])
    second = tf.math.divide_no_nan(stop, lengths[1])
    cosine = tf.reduce_sum(first * second, axis=1, keepdims=True)
    angle = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0))
    length = (1 - position) * lengths[0] + position * lengths[1]
    arc = tf.sin((1 - position) * angle) * first
    arc += tf.sin(position * angle) * second
    arc = tf.math.divide_no_nan(length * arc, tf.sin(angle))
    straight = start * (1 - position) + stop * position
    # A latent of zeros has no direction.
    bent = (tf.sin(angle) >= _LEAST_SINE) & (lengths[0] * lengths[1] > 0)
    return tf.cast(tf.where(bent, arc, straight), tf.float32)


def _spec(dtype, *tail):
    return tf.TensorSpec([None, *tail], dtype)


def _signature(**specs):
    """Traces a function of the named tensors, never compiled by XLA.

    TensorFlow Serving does not run what must be compiled.
    """
    named = [
        tf.TensorSpec(spec.shape, spec.dtype, name)
        for name, spec in specs.items()
    ]

    def decorate(function):
        function = tf.function(
            function, input_signature=named, autograph=False, jit_compile=False
        )
        function.get_concrete_function()
        return function

    return decorate


def _renderer(generator):
    """Returns the one graph of the network that all signatures call."""

    @_signature(latents=_spec(tf.float32, generator.config.latent_dim))
    def render(latents):
        images = tf.cast(generator(latents), tf.float32)
        finite = tf.reduce_all(tf.math.is_finite(images))
        message = "latents must be small enough for finite images"
        with tf.control_dependencies([tf.debugging.Assert(finite, [message])]):
            return tf.clip_by_value(images, -1.0, 1.0)

    return render


def _encode(images):
    """Returns PNG files `(N,)` of images in [-1, 1]."""
    file = tf.TensorSpec([], tf.string)
    return tf.map_fn(
        tf.io.encode_png, to_uint8(images), fn_output_signature=file
    )


# === Checks ===


def _check_latents(latents, width):
    latents = _of_rank("latents", latents, 2)
    shape = tf.shape(latents)
    rule = f"latents must be {width} numbers wide, got"
    latents = _require(latents, shape[1] == width, rule, shape[1])
    finite = tf.math.is_finite(latents)
    latents = _require_all(latents, finite, "latents must be finite")
    return tf.ensure_shape(latents, [None, width])


def _check_truncation(truncation):
    # Neither holds for NaN.
    inside = (truncation > 0) & (truncation <= 1)
    return _require_all(truncation, inside, "truncation must lie in (0, 1]")


def _check_position(position):
    inside = (position >= 0) & (position <= 1)
    return _require_all(position, inside, "position must lie in [0, 1]")


def _check_rows(inputs):
    """Checks that vectors are that, and of one length.

    TensorFlow would spread one row over those of the others.
    """
    inputs = {name: _of_rank(name, x, 1) for name, x in inputs.items()}
    lengths = tf.stack([tf.size(x) for x in inputs.values()])
    equal = tf.reduce_all(lengths == lengths[0])
    rule = f"{', '.join(inputs)} must have equally many rows, got"
    return {
        name: _require(x, equal, rule, lengths) for name, x in inputs.items()
    }


def _of_rank(name, x, rank):
    """Checks the number of axes; TensorFlow words the error, with the name.

    What is fed need not have the shape of the signature. So the shape is
    forgotten here, and by an operation that no optimization takes for granted
    found again.
    """
    x = tf.compat.v1.placeholder_with_default(x, shape=None, name=name)
    return tf.ensure_shape(x, [None] * rank)


def _require_all(x, right, rule):
    wrong = tf.boolean_mask(x, ~right)
    return _require(x, tf.reduce_all(right), f"{rule}, got", wrong)


def _require(x, condition, rule, value):
    """Returns `x`, which cannot be used before the condition was checked."""
    check = tf.debugging.Assert(condition, [rule, value], summarize=4)
    with tf.control_dependencies([check]):
        return tf.identity(x)
