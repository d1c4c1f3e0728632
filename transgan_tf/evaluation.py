"""Scores of a generator, computed the same way in training and afterwards.

What is measured is written out in the record's protocol: averaged weights,
seeds, pixels rounded to uint8, the feature network and the reference by their
fingerprints. Equal protocols on one machine give equal numbers, on any number
of replicas.
"""

import hashlib
import math
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from transgan_tf.caching import cached_arrays
from transgan_tf.checked import UserError
from transgan_tf.cli import progress_bar
from transgan_tf.configs import EvaluationConfig
from transgan_tf.metrics import registry
from transgan_tf.metrics.collect import Collector
from transgan_tf.metrics.collect import FeatureSet
from transgan_tf.metrics.features import FeatureNetwork
from transgan_tf.metrics.reference import Reference
from transgan_tf.metrics.reference import from_arrays
from transgan_tf.metrics.reference import to_arrays
from transgan_tf.randomness import Draws
from transgan_tf.randomness import latents
from transgan_tf.randomness import root_seed
from transgan_tf.records import to_uint8
from transgan_tf.sampling import images_at_once
from transgan_tf.stores import Store
from transgan_tf.stores import reading
from transgan_tf.version import __version__

# Real images for which a replica computes features at once.
REAL_AT_ONCE = 64


class EvaluationError(UserError):
    """A score that could not be had."""


@dataclass(frozen=True)
class Evaluator:
    """Scores generators against one reference.

    Attributes:
        network: `FeatureNetwork`.
        reference: of the real images.
        settings: metrics, number of samples, seed, and limit of time.
        strategy: `tf.distribute.Strategy` that holds network and generator.
    """

    network: FeatureNetwork
    reference: Reference
    settings: EvaluationConfig
    strategy: tf.distribute.Strategy
    # By generator, so that each is traced once in a training's evaluations.
    _graphs: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self):
        names = self.settings.metric_names
        registry.check_names(names, self.network.classes)
        registry.check_count(names, self.settings.num_images)
        registry.check_reference(names, self.reference.features)

    def score(
        self, generator, stop: Callable[[], bool] = lambda: False
    ) -> dict:
        """Scores samples of a generator.

        Args:
            generator: `Generator`.
            stop: asked between batches; True gives up.

        Returns:
            `metrics`: numbers by name. `too_few`: the metrics that had too few
            samples to be compared with others'. `protocol`: see `protocol`.

        Raises:
            EvaluationError: samples are not finite, the limit of time was
                passed, or `stop` said so.
        """
        features = self._sample(generator, stop)
        numbers, few = registry.scores(
            self.settings.metric_names, features, self.reference.features
        )
        return {
            "metrics": numbers,
            "too_few": few,
            "protocol": self.protocol(generator),
        }

    def protocol(self, generator) -> dict:
        """Returns everything that the numbers depend on, as plain data."""
        noise = generator.config.attention_noise
        reference = self.reference
        return {
            "weights": "exponential moving average",
            "precision": generator.compute_dtype,
            "num_images": self.settings.num_images,
            "seed": self.settings.seed,
            "truncation": 1.0,
            "attention_noise": noise and self.settings.attention_noise,
            "pixels": "clipped to [-1, 1], rounded to uint8, half to even",
            **network_protocol(self.network),
            "reference": reference.name,
            "reference_images": reference.features.count,
            **software(),
        }

    def _sample(self, generator, stop):
        """Returns the `FeatureSet` of a generator's samples."""
        settings = self.settings
        seeds = settings.seed + np.arange(settings.num_images, dtype="int64")
        size = images_at_once(generator.config)
        batches = _rows_at_a_time(seeds, size * replicas(self.strategy))
        collector = Collector(
            len(seeds), self.network.width, self.network.classes
        )
        deadline = time.monotonic() + (settings.time_limit or math.inf)
        for features, logits, finite in _run(
            self.strategy, self._graph(generator), batches, len(seeds), size
        ):
            if not finite.all():
                raise EvaluationError(
                    "the generator makes images that are not finite: take an "
                    "earlier checkpoint"
                )
            if stop() or time.monotonic() > deadline:
                raise EvaluationError(_stopped(settings, collector, stop()))
            collector.add(features, logits)
        return collector.result()

    def _graph(self, generator):
        """Returns the graph of a generator's samples, traced once."""
        if id(generator) not in self._graphs:
            noise = generator.config.attention_noise
            noise = noise and self.settings.attention_noise

            def features_of(seeds):
                return _features_of_samples(
                    self.network, generator, seeds, noise
                )

            self._graphs[id(generator)] = _on_replicas(
                self.strategy, features_of
            )
        return self._graphs[id(generator)]


def _stopped(settings, collector, asked):
    done = f"{collector.moments.count} of {settings.num_images} images"
    if asked:
        return f"interrupted after {done}"
    return (
        f"{done} took longer than evaluation.time_limit = "
        f"{settings.time_limit} s: raise it, or lower evaluation.num_images"
    )


def network_protocol(network: FeatureNetwork) -> dict:
    """Returns what tells a feature network from others, as plain data."""
    return {
        "features": network.name,
        "features_sha256": network.fingerprint,
        "resize": network.resize,
    }


def reference_of(
    store: Store, network: FeatureNetwork, strategy: tf.distribute.Strategy
) -> Reference:
    """Returns features of all images of a dataset, from the cache or anew."""
    key = {
        "images": store.fingerprint,
        **network_protocol(network),
        **software(),
    }

    def make():
        places = np.arange(store.count)
        features = real_features(store, places, network, strategy)
        return to_arrays(Reference(features, store.fingerprint))

    arrays = cached_arrays("reference", key, make)
    return from_arrays(arrays, store.fingerprint)


def real_features(
    store: Store,
    places: np.ndarray,
    network: FeatureNetwork,
    strategy: tf.distribute.Strategy,
) -> FeatureSet:
    """Returns features of the images at some places of a dataset, in order.

    Raises:
        EvaluationError: there are fewer than two.
        DataError: an image cannot be read.
    """
    if len(places) < 2:
        raise EvaluationError(
            f"a reference takes at least 2 images, got {len(places)}"
        )
    collector = Collector(len(places), network.width, network.classes)
    size = REAL_AT_ONCE
    images = tf.data.Dataset.from_tensor_slices(places.astype("int64"))
    images = images.batch(size * replicas(strategy)).map(store.take).unbatch()
    images = images.map(store.decode, num_parallel_calls=tf.data.AUTOTUNE)
    images = images.batch(size * replicas(strategy)).prefetch(1)
    batches = _readable(images)
    graph = _on_replicas(strategy, network)
    for rows in _run(strategy, graph, batches, len(places), size):
        collector.add(*rows)
    return collector.result()


def _readable(images) -> Iterator[np.ndarray]:
    """Yields a dataset's batches, or raises `DataError`."""
    with reading():
        yield from images.as_numpy_iterator()


def score_halves(
    store: Store, names, network: FeatureNetwork, strategy
) -> dict:
    """Scores one half of the real images against the other.

    What it gives is about what a perfect generator would get with as few
    images; with more, scores of small sets are biased less.

    Returns:
        As `Evaluator.score`.
    """
    registry.check_names(names, network.classes)
    registry.check_count(names, store.count // 2)
    # Shuffled, since datasets are often in the order of their classes.
    places = np.random.default_rng(0).permutation(store.count)
    halves = np.split(places[: store.count // 2 * 2], 2)
    first, second = (
        real_features(store, half, network, strategy) for half in halves
    )
    numbers, few = registry.scores(names, first, second)
    protocol = {
        "samples": f"one half of {store.fingerprint}",
        "num_images": first.count,
        **network_protocol(network),
        "reference": "the other half",
        "reference_images": second.count,
        **software(),
    }
    return {"metrics": numbers, "too_few": few, "protocol": protocol}


def replicas(strategy) -> int:
    return strategy.num_replicas_in_sync


def _features_of_samples(network, generator, seeds, noise):
    """Returns features, logits and whether each image was finite."""
    z = latents(seeds, generator.config.latent_dim)
    # The same on any number of replicas, since the batch of each is.
    draws = Draws(root_seed(seeds[0]), seeds.shape[0]) if noise else None
    images = generator(z, draws=draws)
    finite = tf.reduce_all(tf.math.is_finite(images), axis=(1, 2, 3))
    # A number, since truth values cannot be gathered from replicas.
    return *network(to_uint8(images)), tf.cast(finite, tf.int32)


def _rows_at_a_time(rows, size) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _on_replicas(strategy, function: Callable) -> Callable:
    """Returns a graph of a function of rows, its outputs of all replicas."""

    @tf.function(autograph=False)
    def graph(rows):
        outputs = strategy.run(function, (rows,))
        return [strategy.gather(output, axis=0) for output in outputs]

    return graph


def _run(
    strategy,
    graph: Callable,
    batches: Iterable[np.ndarray],
    total: int,
    size: int,
) -> Iterator[list[np.ndarray]]:
    """Applies a graph of `_on_replicas` to rows, in the rows' order.

    Every replica always gets `size` rows, the last ones padded, so that one
    trace does and a row's result does not depend on the number of replicas.
    """
    count = replicas(strategy)
    with progress_bar(total, desc="features", leave=False) as bar:
        for batch in batches:
            missing = size * count - len(batch)
            padding = np.repeat(batch[-1:], missing, axis=0)
            shares = np.split(np.concatenate([batch, padding]), count)
            outputs = graph(_distributed(strategy, shares))
            rows = [output.numpy()[: len(batch)] for output in outputs]
            # Replica by replica, so that sums round alike on any number.
            for part in _rows_at_a_time(np.arange(len(batch)), size):
                yield [row[part] for row in rows]
            bar.update(len(batch))


def _distributed(strategy, shares):
    def value(context):
        return tf.constant(shares[context.replica_id_in_sync_group])

    return strategy.experimental_distribute_values_from_function(value)


def software() -> dict[str, str]:
    """Returns the versions that numbers depend on, as plain data."""
    return {"code": code_version(), "tensorflow": tf.__version__}


@cache
def code_version() -> str:
    """Returns the version and 12 digits of the SHA-256 of the library's code.

    So numbers of changed code are told apart where the version is the same.
    """
    content = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        content.update(path.relative_to(folder).as_posix().encode())
        content.update(path.read_bytes())
    return f"{__version__}+{content.hexdigest()[:12]}"
