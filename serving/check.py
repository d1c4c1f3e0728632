"""The gate: what a version must show before it gets a number.

It is loaded as TensorFlow Serving loads it, in a session that knows nothing of
the model in memory, and has to answer as that model does.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from serving.servable import Servable
from serving.signatures import INTERPOLATE
from serving.signatures import SAMPLE
from serving.signatures import SERVING_DEFAULT
from serving.versions import SAVED_MODEL
from serving.warmup import example_inputs
from transgan_tf.checked import UserError
from transgan_tf.randomness import latents
from transgan_tf.records import to_uint8
from transgan_tf.sampling import slerp

BATCH_SIZES = (1, 3)
# What says nothing about a version.
_OF_THE_MACHINE = (MemoryError, tf.errors.ResourceExhaustedError)
# Greatest differences: of images in [-1, 1], and of pixels in 0 to 255.
IMAGE_TOLERANCE, PIXEL_TOLERANCE = 1e-5, 1


class CheckError(UserError):
    """A version that must not be served."""


def check_version(folder, generator) -> None:
    """Compares what a version answers with its Keras model, at two batch sizes.

    Also checks that it refuses invalid values, and that nothing in it needs
    XLA, which TensorFlow Serving leaves off.

    Args:
        folder: of the version.
        generator: `Generator` that it was made of.

    Raises:
        CheckError: says what is wrong.
    """
    _check_compilation(folder)
    latent_dim = generator.config.latent_dim
    with _loaded(folder) as servable, _full_precision():
        for rows in BATCH_SIZES:
            for key, inputs in example_inputs(latent_dim, rows).items():
                _compare(servable, key, inputs, generator)
        for key, inputs, words in _invalid_inputs(latent_dim):
            _check_refusal(servable, key, inputs, words)


def check_answers(folder) -> None:
    """Checks that a version loads, and that its signatures answer.

    Without the Keras model: for a version that was published before.

    Raises:
        CheckError: says what is wrong.
    """
    with _loaded(folder) as servable:
        default = servable.signatures.get(SERVING_DEFAULT)
        if default is None or "latents" not in default.inputs:
            raise CheckError(f"{folder} is no version of a generator")
        latent_dim = default.inputs["latents"].tensor_shape.dim[1].size
        for key, values in example_inputs(latent_dim, 1).items():
            _answer(servable, key, values)


def _check_compilation(folder):
    path = Path(folder, SAVED_MODEL)
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        nodes = [*graph.node]
        for function in graph.library.function:
            nodes += function.node_def
            _refuse_compiled(function.signature.name, function.attr)
        for node in nodes:
            _refuse_compiled(node.name, node.attr)


def _refuse_compiled(name, attributes):
    if attributes["_XlaMustCompile"].b:
        raise CheckError(
            f"{name} runs only when compiled by XLA, which TensorFlow Serving "
            "leaves off: export without jit_compile"
        )


@contextlib.contextmanager
def _loaded(folder):
    """Gives the version in a session of its own."""
    try:
        servable = Servable(folder)
    except _OF_THE_MACHINE:
        raise
    except Exception as error:
        raise CheckError(
            f"the version does not load ({_first_line(error)})"
        ) from None
    with contextlib.closing(servable):
        yield servable


@contextlib.contextmanager
def _full_precision():
    """Lets a GPU multiply all digits of float32, not those of TensorFloat-32.

    Graph and model may add in other orders, which would show.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _answer(servable, key, inputs):
    """Returns a signature's only output as an array: images, or PNG files."""
    if key not in servable.signatures:
        raise CheckError(f"the version has no signature {key}")
    try:
        outputs = servable.run(servable.signatures[key], inputs)
    except _OF_THE_MACHINE:
        raise
    except tf.errors.OpError as error:
        raise CheckError(
            f"the signature {key} fails on valid inputs ({_first_line(error)})"
        ) from None
    (output,) = outputs.values()
    return output


def _compare(servable, key, inputs, generator):
    """Raises `CheckError` unless the answer is the Keras model's."""
    expected = generator(_latents(key, generator, inputs)).numpy()
    if not np.isfinite(expected).all():
        raise CheckError(
            "the generator makes images that are not finite: take an earlier "
            "checkpoint"
        )
    answer = _answer(servable, key, inputs)
    tolerance = IMAGE_TOLERANCE
    if key == SERVING_DEFAULT:
        expected = np.clip(expected, -1, 1)
    else:
        tolerance, expected = PIXEL_TOLERANCE, to_uint8(expected)
        answer = np.stack([decode_png(file) for file in answer])
    same = answer.shape == expected.shape
    difference = np.inf
    if same:
        difference = np.abs(answer - expected.astype("float32")).max()
    # Not fulfilled by NaN either.
    if not difference <= tolerance:
        raise CheckError(
            f"the signature {key} differs from the Keras model by "
            f"{difference:.3g} at batch {len(expected)}, more than {tolerance} "
            f"(shapes {answer.shape} and {expected.shape})"
        )


def _latents(key, generator, inputs):
    """Returns the latents that a request names, as the library makes them."""
    if key == SERVING_DEFAULT:
        return inputs["latents"]
    width = generator.config.latent_dim
    truncation = inputs["truncation"][:, None]  # (N, 1)
    if key == SAMPLE:
        return latents(inputs["seed"], width).numpy() * truncation
    start, stop = (
        latents(inputs[name], width).numpy() * truncation
        for name in ("start", "stop")
    )
    path = zip(start, stop, inputs["position"], strict=True)
    return np.float32([slerp(*ends, position) for *ends, position in path])


def decode_png(file: bytes) -> np.ndarray:
    """Returns the pixels of a PNG file, uint8 `(H, W, C)`."""
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    return pixels.reshape(*pixels.shape[:2], -1)


def _invalid_inputs(latent_dim) -> Iterator[tuple[str, dict, str]]:
    """Yields a signature, inputs that it must refuse, words of the refusal."""
    examples = example_inputs(latent_dim, 2)
    cases = (
        (SERVING_DEFAULT, "latents", np.nan, "latents must be finite"),
        (SAMPLE, "truncation", 0.0, "truncation must lie in (0, 1]"),
        (SAMPLE, "truncation", 1.5, "truncation must lie in (0, 1]"),
        (SAMPLE, "truncation", np.nan, "truncation must lie in (0, 1]"),
        (INTERPOLATE, "position", -0.5, "position must lie in [0, 1]"),
    )
    for key, name, value, words in cases:
        wrong = examples[key][name].copy()
        wrong[1] = value
        yield key, examples[key] | {name: wrong}, words
    wide = np.zeros((2, latent_dim + 1), "float32")
    yield SERVING_DEFAULT, {"latents": wide}, "latents"
    for key in (SAMPLE, INTERPOLATE):
        short = {"truncation": np.ones(1, "float32")}
        yield key, examples[key] | short, "must have equally many rows"


def _check_refusal(servable, key, inputs, words):
    try:
        servable.run(servable.signatures[key], inputs)
    except tf.errors.InvalidArgumentError as error:
        if words in error.message:
            return
        told = _first_line(error)
    else:
        told = "an answer"
    raise CheckError(
        f"the signature {key} must refuse an input since {words!r}, got {told}"
    )


def _first_line(error):
    return (str(error).splitlines() or [repr(error)])[0]
