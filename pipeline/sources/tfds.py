"""Builders of tensorflow-datasets, by name.

Importing this module imports TensorFlow, which only these builders need.
"""

import hashlib

import apache_beam as beam
import tensorflow_datasets as tfds

from pipeline.sources.base import TASK_SIZE
from pipeline.sources.base import Item
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from pipeline.sources.base import too_large
from transgan_tf.manifest import SourceFacts


class Tfds(Source):
    """Reads the stored files of the images, without encoding them again.

    Args:
        name: of the builder, such as `cifar10` or `lsun/church_outdoor`.
        split: such as `"train"` or `"train+unlabelled"`.
        data_dir: where the builders' data lies; None for their default.
    """

    kind = "tfds"

    def __init__(self, name: str, split: str = "train", data_dir=None):
        self.name = name
        self.split = split
        self.builder = _prepared(name, data_dir)
        if not set(split.split("+")) <= set(self.builder.info.splits):
            known = ", ".join(self.builder.info.splits)
            raise SourceError(
                f"the dataset {name} has no split {split!r}: its splits are "
                f"{known}"
            )
        features = self.builder.info.features
        self.image = _feature(name, features, tfds.features.Image)
        self.label = None
        labels = [k for k, f in features.items() if _is_label(f)]
        if len(labels) == 1:
            (self.label,) = labels
            self.classes = tuple(features[self.label].names)

    def modified(self):
        # A version of a dataset does not change.
        return 0.0

    def facts(self):
        info = self.builder.info
        split = info.splits[self.split]
        text = f"{info.full_name} {self.split} {split.num_bytes}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return SourceFacts(self.kind, split.num_examples, digest)

    def tasks(self):
        return ReadTfds(self)

    def read(self, task):
        """Yields the items of a batch of examples, as NumPy arrays."""
        for index, name in enumerate(task["tfds_id"]):
            label = -1
            if self.label is not None:
                label = int(task[self.label][index])
            data = task[self.image][index]
            # -1 is what these datasets say of an image without a label.
            label = None if label < 0 else label
            yield Item(name.decode(), data, label, too_large(len(data)))


class ReadTfds(beam.PTransform):
    """From the pipeline to batches of a builder's examples."""

    def __init__(self, source: Tfds):
        super().__init__()
        self.source = source

    def expand(self, pipeline):
        source = self.source
        return (
            pipeline
            | "Read examples"
            >> tfds.beam.ReadFromTFDS(
                source.builder,
                split=source.split,
                batch_size=TASK_SIZE,
                decoders={source.image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(add_tfds_id=True),
            )
            | "As arrays" >> beam.Map(tfds.as_numpy)
        )


def _prepared(name, data_dir):
    """Returns a builder whose data is there, downloading it if need be."""
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
    except Exception as error:
        # Whatever its own code or the network does.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise SourceError(
            f"tensorflow-datasets cannot provide {name} ({reason}): prepare it "
            f"by `tfds build {name}`, or name another --source"
        ) from None
    return builder


def _is_label(feature):
    return isinstance(feature, tfds.features.ClassLabel)


def _feature(name, features, kind):
    found = [key for key, f in features.items() if isinstance(f, kind)]
    if len(found) != 1:
        raise SourceError(
            f"the dataset {name} must have one image in an example, it has "
            f"{len(found)}"
        )
    return found[0]
