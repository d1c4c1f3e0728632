"""The networks whose features scores compare, behind one call.

Every network takes uint8 pixels, so that a score is one of what a file would
hold, and is told by a SHA-256 of its weights.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from transgan_tf.caching import cache_folder
from transgan_tf.checked import UserError
from transgan_tf.metrics import classifier
from transgan_tf.metrics.tfgan import import_tfgan
from transgan_tf.records import to_unit_range

# Names of networks that we know; any other name is a SavedModel's folder.
INCEPTION, CLASSIFIER = "inception", "classifier"
FEATURES, LOGITS = "pool_3", "logits"
# Side of images where a SavedModel leaves it open: TF-GAN's, or as they are.
INCEPTION_SIZE, AS_IT_IS = 299, None

_log = logging.getLogger(__name__)


class FeatureError(UserError):
    """A feature network that cannot be had or used."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A network, called with uint8 images of any size.

    Attributes:
        name: `"inception"`, `"classifier"` or a SavedModel's path.
        fingerprint: 16 hexadecimal digits of the weights' SHA-256.
        image_size: side that images are resized to, or None for their own.
        channels: 1 or 3; grey and colour are converted.
        width: number of features D.
        classes: number of logits, or 0 without them.
        function: images `(B, S, S, channels)` float32 in [-1, 1] to a dict of
            `pool_3` `(B, D)` and, with classes, `logits`.
    """

    name: str
    fingerprint: str
    image_size: int | None
    channels: int
    width: int
    classes: int
    function: Callable

    @property
    def resize(self) -> str:
        """Says how images come to the network's size."""
        if self.image_size is None:
            return "none"
        return (
            f"bilinear to {self.image_size} px, half-pixel centres, "
            "antialiased where smaller"
        )

    def __call__(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns features `(B, D)` and logits `(B, classes)`, both float32.

        Args:
            images: uint8 `(B, H, W, 1 or 3)`.
        """
        images = to_unit_range(tf.convert_to_tensor(images))
        if images.shape[-1] != self.channels:
            colour = self.channels == 3
            convert = "grayscale_to_rgb" if colour else "rgb_to_grayscale"
            images = getattr(tf.image, convert)(images)
        size = self.image_size
        if size is not None and images.shape[1:3] != (size, size):
            images = tf.image.resize(images, (size, size), antialias=True)
        outputs = self.function(images)
        count = tf.shape(images)[0]
        features = tf.reshape(outputs[FEATURES], (count, self.width))
        if not self.classes:
            return features, tf.zeros((count, 0))
        return features, tf.reshape(outputs[LOGITS], (count, self.classes))


def load_features(
    name: str,
    strategy: tf.distribute.Strategy | None = None,
    download: bool = False,
    inception: Path | None = None,
) -> FeatureNetwork:
    """Loads a network by name.

    Args:
        name: `"classifier"`, the digits' own; `"inception"`, TF-GAN's from
            the cache; or the folder of a SavedModel.
        strategy: what will run it; the default one if left out.
        download: whether Inception may be downloaded if the cache has none.
        inception: folder of Inception, instead of the cache's.

    Raises:
        FeatureError: the network is not there or has other inputs or outputs.
    """
    strategy = strategy or tf.distribute.get_strategy()
    if name == CLASSIFIER:
        return _digit_classifier(strategy)
    folder, size = Path(name), AS_IT_IS
    if name == INCEPTION:
        folder, size = inception or inception_folder(), INCEPTION_SIZE
        if inception is None and not folder.is_dir():
            _fetch_inception(folder, download)
    return _saved_model(name, folder, size, strategy)


def inception_folder() -> Path:
    """Returns where TF-GAN's Inception is kept once it was downloaded."""
    return cache_folder() / INCEPTION


def _digit_classifier(strategy):
    # Outside of the scope, which training it is not made for.
    weights = classifier.trained_weights()
    with strategy.scope():
        model = classifier.make_classifier()
    model.set_weights(weights)
    content = hashlib.sha256()
    for array in model.get_weights():
        content.update(array.tobytes())
    return FeatureNetwork(
        CLASSIFIER,
        content.hexdigest()[:16],
        classifier.IMAGE_SIZE,
        1,
        classifier.WIDTH,
        classifier.CLASSES,
        model,
    )


# === SavedModels ===


def _fetch_inception(folder, download):
    """Downloads TF-GAN's Inception into the cache."""
    handle = import_tfgan("eval.inception_metrics").INCEPTION_TFHUB
    remedy = (
        f"download {handle} on a machine with a network and put its folder "
        f"at {folder}"
    )
    if not download:
        raise FeatureError(
            f"{folder} does not hold the Inception network, and training does "
            "not download: start `python -m transgan_tf.evaluate "
            f"--features=inception` once, or {remedy}"
        )
    import tensorflow_hub

    _log.info("downloading %s", handle)
    try:
        source = tensorflow_hub.resolve(handle)
    except Exception as error:
        # Depending on where it fails, of urllib, TensorFlow or tarfile.
        reason = str(error).strip().partition("\n")[0]
        raise FeatureError(
            f"{handle} cannot be downloaded ({reason}): {remedy}"
        ) from None
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(folder)


def _saved_model(name, folder, image_size, strategy):
    """Loads a SavedModel with TF-GAN's output names, and measures it."""
    if not (folder / "saved_model.pb").is_file():
        raise FeatureError(
            f"{folder} is not a SavedModel: features are {CLASSIFIER!r}, "
            f"{INCEPTION!r}, or a folder with a saved_model.pb"
        )
    try:
        with strategy.scope():
            loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).partition("\n")[0]
        raise FeatureError(f"{folder} cannot be loaded ({reason})") from None
    function, input_shape = _callable(folder, loaded)
    size, channels = image_size, 3
    if input_shape is not None:
        _check_input(folder, input_shape)
        size, channels = input_shape[1] or size, input_shape[3] or channels
    probe = tf.zeros((2, size or 64, size or 64, channels))
    outputs = _outputs(folder, function, probe, strategy)
    return FeatureNetwork(
        name,
        _folder_fingerprint(folder),
        size,
        channels,
        width=int(tf.size(outputs[FEATURES])) // 2,
        classes=int(tf.size(outputs[LOGITS])) // 2 if LOGITS in outputs else 0,
        function=function,
    )


def _callable(folder, loaded):
    """Returns a function of images, and the shape that it takes if it says."""
    signature = loaded.signatures.get("serving_default")
    if signature is not None:
        inputs = signature.structured_input_signature[1]
        if len(inputs) != 1:
            raise FeatureError(
                f"{folder} takes {len(inputs)} inputs: a feature network "
                "takes images alone"
            )
        ((keyword, spec),) = inputs.items()
        # Held by the closure, since a signature does not keep its variables.
        return lambda images, _=loaded: signature(**{keyword: images}), (
            spec.shape
        )
    if not callable(loaded):
        raise FeatureError(
            f"{folder} has neither a serving_default signature nor a call"
        )
    return loaded, None


def _check_input(folder, shape):
    """Raises `FeatureError` for what does not take batches of images."""
    if shape.rank != 4:
        fits = False
    else:
        batch, height, width, channels = shape
        fits = batch is None and height == width and channels in (None, 1, 3)
    if not fits:
        raise FeatureError(
            f"{folder} takes tensors of shape {shape}: a feature network takes "
            "square images (batch, side, side, 1 or 3), of any number"
        )


def _outputs(folder, function, probe, strategy):
    """Calls a network once, on all replicas; returns one's outputs by name."""
    try:
        # Outside of a replica, mirrored variables cannot be read by a graph.
        outputs = strategy.run(function, (probe,))
        outputs = tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[0], outputs
        )
    except (ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FeatureError(
            f"{folder} does not take float images of shape "
            f"{tuple(probe.shape)} ({reason})"
        ) from None
    if not isinstance(outputs, dict) or FEATURES not in outputs:
        found = ", ".join(outputs) if isinstance(outputs, dict) else "a tensor"
        raise FeatureError(
            f"{folder} must return {FEATURES!r}, and {LOGITS!r} for the "
            f"Inception score, by name: it returns {found}"
        )
    for name in {FEATURES, LOGITS} & outputs.keys():
        value = outputs[name]
        if not value.dtype.is_floating or value.shape[:1] != probe.shape[:1]:
            raise FeatureError(
                f"{folder} must return a row of numbers for each image as "
                f"{name!r}: it returns {value.dtype.name} of shape "
                f"{tuple(value.shape)} for 2 images"
            )
    return outputs


def _folder_fingerprint(folder):
    """Returns 16 hexadecimal digits of the SHA-256 of graph and weights."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_file() and relative.startswith(("saved_model", "variables")):
            content.update(relative.encode())
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            content.update(digest)
    return content.hexdigest()[:16]
