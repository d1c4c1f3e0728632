"""Runs the preprocessing job in tests, and reads what it made."""

import io
import json

import numpy as np
from PIL import Image

from pipeline import preprocess
from pipeline.tfrecord import read_records
from transgan_tf.manifest import load_manifest
from transgan_tf.records import decode


def run(output, *, dataset="cats", **flags):
    """Runs the command line in this process; returns its status."""
    usual = {"image_size": 16, "shards": 3, "direct_running_mode": "in_memory"}
    flags = usual | flags
    words = [f"--dataset={dataset}", f"--output_dir={output}"]
    words += [f"--{name}={value}" for name, value in flags.items()]
    return preprocess.main(words)


def prepare(output, **flags):
    """Runs the job, which must succeed; returns the dataset's folder."""
    assert run(output, **flags) == 0
    return output / flags.get("dataset", "cats")


def records(folder, split="train"):
    """Returns the records of a split, in order, decoded."""
    found = []
    for shard in load_manifest(folder).shards_of(split):
        with open(folder / shard.name, "rb") as file:
            found += [decode(record) for record in read_records(file)]
    return found


def images(folder, split="train"):
    """Returns the pixels of a split's images by their keys."""
    pixels = {}
    for record in records(folder, split):
        with Image.open(io.BytesIO(record["encoded"])) as image:
            pixels[record["filename"]] = np.asarray(image)
    return pixels


def contents(folder):
    """Returns the bytes of every file of a dataset, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def quarantine(folder):
    """Returns the rows of a dataset's quarantine."""
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
