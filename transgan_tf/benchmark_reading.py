"""How fast TFRecords are read: `python -m transgan_tf.benchmark_reading`."""

import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from transgan_tf import cli

BATCH = 50


@dataclass(frozen=True)
class Arguments:
    """Compare the training stream with a bare tf.data loop over a dataset.

    Both decode, scale and batch; the stream also shuffles over the whole
    dataset, mirrors, and may begin anywhere.

    python -m transgan_tf.benchmark_reading --dataset_dir=data/photographs
    """

    dataset_dir: Path
    """Folder of a dataset that pipeline.preprocess made."""
    num_images: int = 5000
    """How many to read, again and again from the beginning."""


def bare(folder, count):
    """A tf.data loop that decodes and scales in the order of the files."""
    import tensorflow as tf

    from transgan_tf.manifest import load_manifest
    from transgan_tf.records import parse
    from transgan_tf.records import to_unit_range

    manifest = load_manifest(folder)
    channels = manifest.settings.channels
    paths = [str(folder / s.name) for s in manifest.shards_of("train")]
    dataset = tf.data.TFRecordDataset(paths).repeat().take(count)
    images = dataset.map(
        lambda record: to_unit_range(parse(record, channels)["image"]),
        num_parallel_calls=os.cpu_count(),
    )
    return images.batch(BATCH, drop_remainder=True).prefetch(2)


def stream(folder, count):
    """What training takes: shuffled, decoded, flipped, scaled, batched."""
    from transgan_tf.configs import TrainingConfig
    from transgan_tf.stores import RecordStore
    from transgan_tf.stream import step_batches

    training = TrainingConfig(
        batch_size=BATCH, n_critic=1, steps=count // BATCH
    )
    return step_batches(RecordStore(folder), training)


def images_per_second(dataset, count) -> float:
    start = time.perf_counter()
    for _ in dataset:
        pass
    return count / (time.perf_counter() - start)


def act(arguments: Arguments) -> int:
    """Prints images per second of both, medians of four turns each."""
    folder, count = arguments.dataset_dir, arguments.num_images
    rates = {bare: [], stream: []}
    for _ in range(5):
        for read, seen in rates.items():
            seen.append(images_per_second(read(folder, count), count))
    # The first turn of each fills the system's file cache.
    bare_rate, stream_rate = (
        statistics.median(seen[1:]) for seen in rates.values()
    )
    print(f"bare tf.data loop {bare_rate:7.0f} images/s")
    ratio = stream_rate / bare_rate
    print(f"training stream   {stream_rate:7.0f} images/s {ratio:5.2f} of it")
    return cli.DONE


def main(argv=None) -> int:
    command = "python -m transgan_tf.benchmark_reading"
    return cli.run(Arguments, act, command, argv)


if __name__ == "__main__":
    sys.exit(main())
