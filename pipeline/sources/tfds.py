"""Builders of tensorflow-datasets, by name.

Importing this module imports TensorFlow, which only these builders need.
"""

import hashlib

import apache_beam as beam
import tensorflow_datasets as tfds

from pipeline.sources.base import Item
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
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
        if not set(_parts(split)) <= set(self.builder.info.splits):
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
        text = f"{info.full_name} {self.split}"
        digest = hashlib.sha256(text.encode()).hexdigest()
        return SourceFacts(self.kind, split.num_examples, digest)

    def items(self):
        return ReadTfds(self)

    def item(self, example) -> Item:
        """Returns the item of an example as NumPy values."""
        label = None
        if self.label is not None and example[self.label] >= 0:
            label = int(example[self.label])
        key = example["tfds_id"].decode()
        return Item(key, example[self.image], label)


class ReadTfds(beam.PTransform):
    """From the pipeline to the items of a builder."""

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
                decoders={source.image: tfds.decode.SkipDecoding()},
                read_config=tfds.ReadConfig(add_tfds_id=True),
            )
            | "Take out files"
            >> beam.Map(lambda example: source.item(tfds.as_numpy(example)))
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


def _parts(split):
    """Returns the names in a split such as `train[:10]+test`."""
    return [part.partition("[")[0] for part in split.split("+")]


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
